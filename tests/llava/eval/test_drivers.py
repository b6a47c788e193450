"""Upstream's model_vqa* commands: prompts, pixels, keywords and answer lines are the recorded ones."""

import importlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llava.conversation import conv_templates
from llava.eval.drivers import get_chunk, mmtag_template, split_list
from llava.eval.inputs import PromptStyle
from tests.llava.eval.conftest import GOLDEN, CharacterTokenizer, EchoModel, Report, read_lines

DRIVERS = GOLDEN / "drivers"
CASES = json.loads((DRIVERS / "expected.json").read_text())
CANNED = json.loads((DRIVERS / "canned_answers.json").read_text())
CHUNKS = json.loads((GOLDEN / "chunking.json").read_text())
SYSTEM = conv_templates["vicuna_v1"].system


class RecordingModel(EchoModel):
    """Gives the canned answers in turn and remembers what came in."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def generate_with_report(self, inputs, *, images, image_sizes, attention_mask, **keywords):
        answer = CANNED[len(self.calls) % len(CANNED)]
        self.calls.append((inputs[0].tolist(), images, image_sizes, keywords))
        self(inputs)
        new_ids = [[ord(character) for character in answer]] * len(inputs)
        return torch.tensor(new_ids), [Report() for _ in inputs]


def pixels_as_they_are(images, return_tensors):
    return {"pixel_values": torch.stack([torch.tensor(np.array(image)).permute(2, 0, 1) for image in images])}


pixels_as_they_are.image_mean = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture
def run(session, tmp_path, monkeypatch):
    """Run a driver on a recording session; returns the model and the answers file."""
    checkpoint = tmp_path / "golden-llava-v1.5-7b"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").touch()

    def start(module, flags, *, use_start_end=False):
        model = RecordingModel()

        def load(arguments, ranks):
            name = "vicuna_v1" if arguments.conv_mode == "auto" else arguments.conv_mode
            style = PromptStyle(template=conv_templates[name], routing=None, use_start_end=use_start_end)
            return replace(
                session,
                model=model,
                tokenizer=CharacterTokenizer(),
                image_processor=pixels_as_they_are,
                style=style,
                model_id="golden-llava-v1.5-7b",
            )

        monkeypatch.setattr("llava.eval.drivers.load_session", load)
        answers = tmp_path / "answers" / "a.jsonl"
        places = ["--model-path", str(checkpoint), "--answers-file", str(answers), "--num_workers", "0"]
        importlib.import_module(f"llava.eval.{module}").main([*places, *flags])
        return model, answers

    return start


def flags_of(case):
    return [
        flag.replace("INPUTS/images", str(DRIVERS)).replace("INPUTS", str(DRIVERS)) for flag in case["flags"]
    ]


def marked(ids):
    return "<BOS>" + "".join("<IMG>" if i == -200 else chr(i) for i in ids[1:])


@pytest.mark.parametrize("name", CASES)
def test_a_driver_asks_and_writes_as_upstreams(name, run):
    case = CASES[name]
    model, answers = run(case["module"], flags_of(case), use_start_end=case["mm_use_im_start_end"])
    prompts = [marked(ids) for ids, *_ in model.calls]
    assert prompts == [prompt.format(SYSTEM=SYSTEM) for prompt in case["prompts"]]
    for (_, images, sizes, keywords), expected in zip(model.calls, case["images"], strict=True):
        require_same_pixels(images, sizes, expected)
        require_same_keywords(keywords, case["generate_kwargs"])
    rows = read_lines(answers)
    for row, expected in zip(rows, case["answers"], strict=True):
        assert list(row) == case["key_order"]
        assert len(row.pop("answer_id")) == 22
        assert row == expected | {"model_id": "golden-llava-v1.5-7b", "metadata": {}}
    assert answers.read_text().isascii()


def require_same_pixels(images, sizes, expected):
    if expected is None:
        assert (images, sizes) == (None, None)
        return
    assert list(images.shape) == expected["shape"]
    height, width = images.shape[-2:]
    assert images[0, :, 0, 0].tolist() == expected["topleft"]
    assert images[0, :, height // 2, width // 2].tolist() == expected["center"]
    assert [list(size) for size in sizes] == [expected["size"]]


def require_same_keywords(keywords, expected):
    """Greedy keywords leave out temperature and top_p, which mean nothing there."""
    meaningless = () if expected["do_sample"] else ("temperature", "top_p")
    wanted = {key: value for key, value in expected.items() if value is not None and key not in meaningless}
    assert keywords == {"num_beams": 1} | wanted


def test_several_questions_may_be_asked_at_once_and_stay_in_order(run):
    flags = flags_of(CASES["science_single_pred"])
    _, answers = run("model_vqa_science", flags)
    alone = [row["prompt"] for row in read_lines(answers)]
    model, answers = run("model_vqa_science", [*flags, "--batch_size", "2"])
    assert len(model.calls) == 2  # the question without an image, then both others
    assert [row["prompt"] for row in read_lines(answers)] == alone


@pytest.mark.parametrize("case", CHUNKS, ids=lambda case: f"{case['n']} in {case['num_chunks']}")
def test_chunks_are_upstreams_and_surplus_ones_are_empty(case):
    items, num_chunks = list(range(case["n"])), case["num_chunks"]
    chunks = [get_chunk(items, num_chunks, index) for index in range(num_chunks)]
    filled = [chunk for chunk in case["chunks"] if chunk]
    assert chunks == filled + [[]] * (num_chunks - len(filled))
    assert split_list(items, num_chunks) == filled


def test_a_surplus_part_writes_an_empty_file_without_loading_a_model(run):
    flags = [*flags_of(CASES["loader_greedy"]), "--num-chunks", "8", "--chunk-idx", "7"]
    model, answers = run("model_vqa_loader", flags)
    assert model.calls == []
    assert answers.read_text() == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chunk-idx", "1"], "--chunk-idx 1 of --num-chunks 1"),
        (["--conv-mode", "vicuna"], "no template 'vicuna'; there are v1"),
        (["--question-file", "missing.jsonl"], r"missing\.jsonl: no such file"),
        (
            ["--image-folder", "nowhere"],
            "question q1: no image nowhere/wide.png; --image-folder is 'nowhere'",
        ),
        (["--model-path", "./missing"], "--model-path ./missing: no such directory"),
    ],
)
def test_what_cannot_work_ends_in_one_line(run, flags, message):
    with pytest.raises(SystemExit, match=f"^llava.eval.model_vqa: .*{message}"):
        run("model_vqa", [*flags_of(CASES["vqa_greedy"]), *flags])


def test_a_record_that_is_no_question_is_named(run, tmp_path):
    (tmp_path / "sqa.json").write_text('[{"id": "1", "conversations": []}]')
    with pytest.raises(SystemExit, match=r"sqa\.json: .*1"):
        run("model_vqa_science", ["--question-file", str(tmp_path / "sqa.json")])


def test_callers_of_upstreams_function_need_none_of_our_flags(run, tmp_path, monkeypatch):
    run("model_vqa", flags_of(CASES["vqa_greedy"]))  # leaves the session's stand-in in place
    answers = tmp_path / "b.jsonl"
    upstreams = SimpleNamespace(
        model_path=str(tmp_path / "golden-llava-v1.5-7b"),
        model_base=None,
        image_folder=str(DRIVERS),
        question_file=str(DRIVERS / "questions.jsonl"),
        answers_file=str(answers),
        conv_mode="vicuna_v1",
        num_chunks=1,
        chunk_idx=0,
        temperature=0,
        top_p=None,
        num_beams=1,
    )
    importlib.import_module("llava.eval.model_vqa").eval_model(upstreams)
    assert len(read_lines(answers)) == 4


def test_a_plain_model_is_asked_with_the_tagged_template():
    assert mmtag_template("v1", "checkpoints/llava-plain") == "v1_mmtag"
    assert mmtag_template("v1_mmtag", "checkpoints/llava-plain") == "v1_mmtag"
    assert mmtag_template("v1", "checkpoints/llava-plain-Finetune") == "v1"
    assert mmtag_template(None, "checkpoints/llava-plain") is None
