"""Upstream's command and `eval_model` answer as the original does; images are never silently left out."""

import numpy as np
import pytest
from PIL import Image

from llava.eval import run_llava
from llava.model.tokenizer import load_tokenizer
from tests.golden_data import case_folder, golden_root

FIELDS = {
    "model_base": None,
    "model_name": "ignored",
    "conv_mode": None,
    "sep": ",",
    "temperature": 0,
    "top_p": None,
    "num_beams": 1,
    "max_new_tokens": 16,
}


@pytest.fixture
def golden(tmp_path, monkeypatch):
    """Give the image file and the answer of a reference case; work where llava-tiny finds its tower."""
    stored = np.load(case_folder("mm") / "v01_v1_square.npz")
    Image.fromarray(stored["image_0"]).save(tmp_path / "a.png")
    monkeypatch.chdir(golden_root() / "common")
    tokenizer = load_tokenizer("llava-tiny")
    answer = tokenizer.decode(stored["greedy_ids"][0], skip_special_tokens=True).strip()
    return tmp_path / "a.png", answer


@pytest.mark.parametrize(
    "query",
    [
        "What color is the cat?",
        "<image-placeholder>\nWhat color is the cat?",
        "<image>\nWhat color is the cat?",
    ],
)
def test_upstreams_function_answers_as_the_original(golden, capsys, query):
    image, answer = golden
    asked = type("Args", (), {**FIELDS, "model_path": "llava-tiny", "image_file": str(image), "query": query})
    assert run_llava.eval_model(asked()) == answer
    assert capsys.readouterr().out.strip() == answer


def test_upstreams_command_answers_as_the_original(golden, capsys):
    image, answer = golden
    words = f"--model-path llava-tiny --image-file {image} --temperature 0 --max_new_tokens 16 --num_beams 1"
    run_llava.main([*words.split(), "--query", "What color is the cat?"])
    assert capsys.readouterr().out.strip() == answer


@pytest.fixture
def asked(monkeypatch):
    """Stand for the loaded checkpoint; collect prompt, number of images and budget."""
    seen = []

    class Recorder:
        def image_mark(self):
            return "<image>"

        def prompt(self, turns):
            return turns[0][0]

        def answer(self, prompt, images, decoding):
            seen.append((prompt, len(images), decoding.arguments().get("budget")))
            return "yes"

    monkeypatch.setattr(run_llava, "load_assistant", lambda *_, **__: Recorder())
    monkeypatch.setattr(run_llava, "read_image", lambda source: source)
    return seen


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Which?", "<image>\n<image>\nWhich?"),
        ("Is <image-placeholder> like <image-placeholder>?", "Is <image> like <image>?"),
    ],
)
def test_every_image_gets_its_place(asked, query, expected):
    run_llava.main(["--model-path", "m", "--image-file", "a.png,b.png", "--query", query])
    assert asked == [(expected, 2, None)]


def test_more_images_than_places_are_refused(asked):
    with pytest.raises(
        SystemExit, match="--query has 1 places for images, but --image-file names 2: give one"
    ):
        run_llava.main(["--model-path", "m", "--image-file", "a,b", "--query", "<image-placeholder>?"])
    assert not asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", ["a.png"]),
        ("a.png,b.png", ["a.png", "b.png"]),
        ("https://x.org/w=1,h=2/b.png", ["https://x.org/w=1,h=2/b.png"]),
        (
            "a.png,https://x.org/1,2.png,https://y.org/c.png",
            ["a.png", "https://x.org/1,2.png", "https://y.org/c.png"],
        ),
    ],
)
def test_a_separator_inside_an_address_splits_nothing(text, expected):
    assert run_llava.split_sources(text, ",") == expected


def test_a_separator_inside_a_files_name_splits_nothing(tmp_path):
    path = tmp_path / "a,b.png"
    path.touch()
    (tmp_path / "c.png").touch()
    assert run_llava.split_sources(str(path), ",") == [str(path)]
    joined = f"https://x.org/a.png,{tmp_path / 'c.png'}"
    assert run_llava.split_sources(joined, ",") == ["https://x.org/a.png", str(tmp_path / "c.png")]


def test_more_joined_names_than_a_file_name_is_long_are_split():
    assert run_llava.split_sources(",".join(["a.png"] * 1000), ",") == ["a.png"] * 1000


def test_a_top_p_above_1_is_refused_before_the_checkpoint_is_loaded(asked):
    with pytest.raises(SystemExit, match=r"^llava.eval.run_llava: top_p is a share .* from 0 to 1, got 1.5"):
        run_llava.main(["--model-path", "m", "--image-file", "a", "--query", "b", "--top_p", "1.5"])
    assert not asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-file", "a", "--query", "b"], "--model-path is missing"),
        (["--model-path", "a", "--query", "b"], "--image-file is missing"),
        (["--model-path", "a", "--image-file", "/gone.png", "--query", "b"], r"/gone\.png does not exist"),
        (["--model-path", "a", "--image-file", "b", "--query", "c", "--sep", ""], "--sep must not be empty"),
    ],
)
def test_what_is_wrong_ends_in_one_line(words, message):
    with pytest.raises(SystemExit, match=f"^llava.eval.run_llava: .*{message}"):
        run_llava.main(words)


def test_a_budget_reaches_generate_and_none_is_not_mentioned(asked):
    for flags in (["--budget", "0.4"], []):
        run_llava.main(["--model-path", "m", "--image-file", "a.png", "--query", "Which?", *flags])
    assert [budget for _, _, budget in asked] == [0.4, None]
