"""The terminal dialogue streams answers, keeps history, changes images and leaves when asked to."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from llava.eval.chat import Decoding, load_assistant
from llava.model.budgets import Budgets
from llava.model.identity import checkpoint_digest
from llava.model.reduction import BudgetTable
from llava.serve import cli
from tests.golden_data import case_folder, golden_root

GREEDY = Decoding(temperature=0, max_new_tokens=16)


@pytest.fixture(scope="module")
def assistant():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_root() / "common")
        return load_assistant("llava-tiny", device="cpu")


@pytest.fixture(scope="module")
def answer(assistant):
    ids = np.load(case_folder("mm") / "v01_v1_square.npz")["greedy_ids"][0]
    return assistant.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.load(case_folder("mm") / "v01_v1_square.npz")["image_0"]).save(path)
    return str(path)


@pytest.fixture
def converse(assistant, image, monkeypatch, capsys):
    """Type lines; return what was printed."""

    def type_in(*lines, debug=False, image_file=image):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        cli.talk(assistant, image_file, GREEDY, debug=debug)
        return capsys.readouterr().out

    return type_in


QUESTION = "What color is the cat?"


def test_a_question_gets_the_originals_answer(converse, answer):
    assert f"ASSISTANT: {answer}\n" in converse(QUESTION, "/exit")


def test_an_answer_is_written_while_it_comes(assistant, image, monkeypatch):
    seen = []
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    monkeypatch.setattr(
        cli.TextStreamer, "on_finalized_text", lambda _, text, stream_end=False: seen.append(text)
    )
    cli.talk(assistant, image, GREEDY)
    assert len(seen) > 3


def test_the_dialogue_is_remembered_until_it_is_reset(converse, answer):
    out = converse(QUESTION, "Why?", "/reset", QUESTION, "/exit", debug=True)
    prompts = re.findall(r"'prompt': [\"'](.*?)[\"'], 'answer'", out)
    assert len(prompts) == 3
    assert f"ASSISTANT: {answer}</s>USER: Why? ASSISTANT:" in prompts[1]
    assert prompts[2] == prompts[0]
    assert "a new dialogue about the same image" in out
    assert out.count(f"ASSISTANT: {answer}\n") == 2


def test_another_image_begins_another_dialogue(converse, image, answer, tmp_path):
    Image.new("RGB", (30, 60), "blue").save(tmp_path / "b c.png")
    out = converse(f"/image {image}", QUESTION, f"/image {tmp_path / 'b c.png'}", QUESTION, "", debug=True)
    assert "b c.png" in out
    assert out.count("'prompt'") == 2
    assert out.count("</s>") == 0  # no dialogue has a second turn
    assert out.count(f"ASSISTANT: {answer}\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/image /gone.png", "/gone.png does not exist"),
        ("/image", "/image is no command"),
        ("/foo", "/foo is no"),
    ],
)
def test_a_wrong_command_is_explained_and_the_dialogue_goes_on(converse, answer, line, message):
    out = converse(line, QUESTION)
    assert message in out
    assert f"ASSISTANT: {answer}\n" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hi <image> there", "the prompt has 2 places for images, but there are 1 images"),
        ("hi \udcff", "the line is not UTF-8 text (surrogates not allowed): type it again"),
    ],
)
def test_a_line_that_cant_be_asked_is_explained_and_the_dialogue_goes_on(converse, answer, line, message):
    out = converse(line, QUESTION)
    assert message in out
    assert f"ASSISTANT: {answer}\n" in out


def test_bytes_that_are_no_text_are_explained_and_do_not_end_the_dialogue(assistant, monkeypatch, capsys):
    typed = io.BytesIO(b"\xff\xfe\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(typed, encoding="utf-8", errors="strict"))
    cli.talk(assistant, None, GREEDY)
    out = capsys.readouterr().out
    assert "the line is not UTF-8 text (invalid start byte): type it again" in out
    assert out.endswith("exit\n")


@pytest.mark.parametrize("lines", [(), ("",), ("/exit", "never asked")])
def test_the_end_of_input_an_empty_line_and_exit_leave(converse, lines):
    out = converse(*lines)
    assert out.endswith("exit\n")
    assert "ASSISTANT" not in out


def test_a_dialogue_needs_no_image(converse):
    assert "<image>" not in converse(QUESTION, debug=True, image_file=None)


@pytest.mark.parametrize(
    ("role", "name"), [("USER", "USER"), ("<|im_start|>assistant\n", "assistant"), ("", ">")]
)
def test_roles_are_shown_as_a_person_reads_them(role, name):
    assert cli.role_name(role) == name


def test_upstreams_flags_are_understood(monkeypatch, image):
    seen = {}
    monkeypatch.setattr(cli, "load_assistant", lambda *paths, **options: seen.update(options, paths=paths))
    monkeypatch.setattr(cli, "talk", lambda *given, **named: seen.update(named, given=given))
    words = (
        f"--model-path m --model-base b --image-file {image} --device cpu --conv-mode llava_v1 "
        "--temperature 0.7 --max-new-tokens 9 --load-8bit --debug"
    )
    cli.main(words.split())
    assert seen["paths"] == ("m", "b")
    assert (seen["device"], seen["conv_mode"]) == ("cpu", "llava_v1")
    assert (seen["load_8bit"], seen["load_4bit"], seen["debug"]) == (True, False, True)
    assert seen["given"][1:] == (image, Decoding(temperature=0.7, max_new_tokens=9))


@pytest.mark.parametrize(
    ("words", "message"), [([], "--model-path is missing"), (["--model-path", "/gone"], "/gone")]
)
def test_what_is_wrong_ends_in_one_line(words, message):
    with pytest.raises(SystemExit, match=f"^llava.serve.cli: .*{message}"):
        cli.main(words)


@pytest.fixture
def calibrated(tiny_llava, tmp_path):
    """Give the folder of a DPN checkpoint that can be asked for shares from 0.4 to 1."""
    tokenizer, model, _ = tiny_llava("dpn", "layers=1,2,3", "min_tokens=0")
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shares = {"visual": (1.0, 0.4), "full": (1.0, 0.7)}
    Budgets(
        table=BudgetTable((-1000.0, 1000.0), shares),
        reduction=model.config.reduction,
        checkpoint=checkpoint_digest(folder),
        provenance={},
    ).write(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "num_pooled"),
    [("--budget 0.4", 3), ("--budget 1.0", 0), ("--budget 0.7 --counting full", 3)],
)
def test_a_budget_holds_for_every_turn_of_a_dialogue(calibrated, image, monkeypatch, words, num_pooled):
    outputs = []

    def loaded(*given, **named):
        found = load_assistant(*given, **named)
        found.model.register_forward_hook(lambda *seen: outputs.append(seen[-1]))
        return found

    monkeypatch.setattr(cli, "load_assistant", loaded)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\nWhy?\n/exit\n"))
    given = f"--model-path {calibrated} --image-file {image} --device cpu --temperature 0 --max-new-tokens 2"
    cli.main([*given.split(), *words.split()])
    prefills = [output.routing for output in outputs if output.routing is not None]
    assert [routing.route_names(0).count("2x2") for routing in prefills] == [num_pooled] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--budget 0.1", "budget=0.1 .visual. is out of reach"),
        ("--budget 0.5 --counting all", "counting must be one of visual, full, got 'all'"),
        ("--budget 0.5 --reduction dpn eval_choice=random", "which eval_choice=random doesn't ask"),
    ],
)
def test_a_budget_that_cannot_be_had_ends_in_one_line_before_the_first_question(calibrated, words, message):
    with pytest.raises(SystemExit, match=f"^llava.serve.cli: .*{message}"):
        cli.main(["--model-path", calibrated, "--device", "cpu", *words.split()])
