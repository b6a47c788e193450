"""`python -m llava.data verify` reports sources and findings by id; its exit code is the verdict."""

import json

import pytest
from PIL import Image

from llava.data.__main__ import main
from llava.data.mixes import MIXES, TEXT_ONLY, count_sources, differences, likely_mix
from llava.data.records import Record
from tests.golden_data import golden_root

SHOWN = {"from": "human", "value": "<image>\nWhat?"}
QUESTION = {"from": "human", "value": "What?"}
ANSWER = {"from": "gpt", "value": "A cat."}


@pytest.fixture
def data(tmp_path):
    """Write samples of several sources and their images; return a function that runs the command on them."""
    samples = [{"id": "text", "conversations": [QUESTION, ANSWER]}]
    for source in ("coco", "gqa", "ocr_vqa", "textvqa", "vg"):
        (tmp_path / "images" / source).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / source / "a.jpg")
        samples.append({"id": source, "image": f"{source}/a.jpg", "conversations": [SHOWN, ANSWER]})

    def run(*words, more=(), tokenizer=True):
        (tmp_path / "data.json").write_text(json.dumps([*samples, *more]))
        flags = [
            "--data_path",
            tmp_path / "data.json",
            "--image_folder",
            tmp_path / "images",
            "--num_workers",
            0,
        ]
        flags += ["--model_name_or_path", golden_root() / "common/tok_slow_nonlegacy"] if tokenizer else []
        return main(["verify", *map(str, flags), "--report", str(tmp_path / "report.json"), *words])

    run.report = lambda: json.loads((tmp_path / "report.json").read_text())
    return run


def test_good_data_have_exit_code_0(data, capsys):
    assert data() == 0
    out = capsys.readouterr().out
    assert "6 samples, 6 checked" in out
    assert out.endswith("no problems\n")
    assert data.report()["sources"] == {
        "coco": 1,
        "gqa": 1,
        "ocr_vqa": 1,
        "text only": 1,
        "textvqa": 1,
        "vg": 1,
    }


def test_problems_have_exit_code_1_and_are_named_by_id(data, capsys):
    more = [
        {"id": "lost", "image": "vg/b.jpg", "conversations": [SHOWN, ANSWER]},
        {"id": "open", "conversations": [QUESTION]},
        {"id": "silent", "conversations": [QUESTION, {"from": "gpt", "value": ""}]},
    ]
    assert data(more=more) == 1
    found = {finding["sample"]: finding["kind"] for finding in data.report()["findings"]}
    assert found == {"open": "bad record", "lost": "image missing", "silent": "text unusable"}
    out = capsys.readouterr().out
    assert "9 samples, 8 checked" in out
    assert "image missing: 1 samples\n  lost: there is no file" in out
    assert out.endswith("3 problems\n")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("vg ")]
    assert row[1:4] == ["2", "1", "0"]


def test_long_samples_are_a_problem_only_if_nothing_is_left_to_learn(data, capsys):
    long = {"id": "long", "conversations": [QUESTION, {"from": "gpt", "value": "word " * 3000}]}
    late = {"id": "late", "conversations": [{"from": "human", "value": "word " * 3000}, ANSWER]}
    assert data(more=[long]) == 0
    assert data(more=[long, late]) == 1
    out = capsys.readouterr().out
    assert "cut: 1 samples\n  long: " in out
    assert "nothing left to learn: 1 samples\n  late: " in out


def test_a_file_is_compared_with_the_mix_of_its_sources_and_held_to_it_on_demand(data, capsys):
    assert data() == 0
    assert "665k mix" in capsys.readouterr().out
    assert data.report()["differences"]["coco"] == [1, 364_100]
    assert data("--mix", "665k") == 1
    assert data("--mix", "none") == 0
    assert data.report()["mix"] is None


def test_a_sample_of_a_file_can_be_checked(data):
    assert data("--sample", "3") == 0
    assert (data.report()["samples"], data.report()["checked"]) == (6, 3)


def test_what_is_not_checked_is_said(data, capsys):
    assert data(tokenizer=False) == 0
    assert "lengths were not measured: name the base model by --model_name_or_path" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_path", "/gone.json"], "training data /gone.json does not exist"),
        (["--image_folder", "/gone"], "--image_folder /gone: there is no such folder"),
        (["--mix", "1m"], "--mix must be auto, none, 665k, 558k, got 1m"),
        (["--version", "v9"], "--version v9 is unknown"),
        (["--sample", "0"], "--sample must be 1 or more, got 0"),
        (["--model_name_or_path", "/gone"], "no tokenizer at /gone"),
    ],
)
def test_a_check_that_cannot_be_made_has_exit_code_2(data, capsys, words, message):
    assert data(*words) == 2
    assert f"llava.data verify: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code"), [([], 2), (["fetch"], 2), (["--help"], 0)])
def test_the_only_command_is_verify(words, code, capsys):
    assert main(words) == code
    assert "python -m llava.data verify" in capsys.readouterr().err


def test_the_mixes_have_the_published_sizes():
    assert sum(MIXES["665k"].values()) == 665_298
    assert sum(MIXES["558k"].values()) == 558_128


def test_the_caption_mix_is_known_by_its_numbered_folders():
    counts = count_sources([Record("a", "00453/004539375.jpg", (), "x"), Record("b", "00012/1.jpg", (), "x")])
    assert likely_mix(counts) == "558k"
    assert differences(counts, "558k") == {"numbered folders": (2, 558_128)}


def test_other_data_are_compared_with_nothing():
    counts = count_sources([Record("a", "b.jpg", (), "x"), Record("b", None, (), "x")])
    assert counts == {"no folder": 1, TEXT_ONLY: 1}
    assert likely_mix(counts) is None
