"""A dialogue is asked in the checkpoint's wording; golden answers come out of prompts made of turns."""

import http.server
import json
import logging
import re
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.conversation import conv_templates
from llava.eval.chat import Assistant, Decoding, Dialogue, choose_template, load_assistant, read_image
from llava.model.tokenizer import load_tokenizer
from tests.golden_data import case_folder, golden_root

GREEDY = Decoding(temperature=0, max_new_tokens=16)
MM = case_folder("mm")
INDEX = MM / "index.json"
ONE_CASE = [{"name": "v01_v1_square", "template": "v1", "turns": ["<image>\nWhat color is the cat?", None]}]
CASES = [
    case
    for case in (json.loads(INDEX.read_text()) if INDEX.is_file() else ONE_CASE)
    if case.get("template") in ("v1", "llava_v1", "llava_llama_2") and (MM / f"{case['name']}.npz").is_file()
]


@pytest.fixture(scope="module")
def assistant():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_root() / "common")  # llava-tiny names its tower by a relative path
        return load_assistant("llava-tiny", device="cpu")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_turns_give_the_prompt_and_the_answer_of_the_original(assistant, case):
    stored = np.load(MM / f"{case['name']}.npz")
    asked = Assistant(**{**vars(assistant), "template": conv_templates[case["template"]]})
    turns = list(zip(case["turns"][::2], case["turns"][1::2], strict=True))
    prompt = asked.prompt(turns)
    assert prompt == case.get("prompt", prompt)
    images = [Image.fromarray(stored[name]) for name in sorted(stored.files) if re.match("image_[0-9]", name)]
    expected = asked.tokenizer.decode(stored["greedy_ids"][0], skip_special_tokens=True).strip()
    assert asked.answer(prompt, images, GREEDY) == expected


def test_a_dialogue_shows_the_image_once_and_remembers_answers_without_end_tokens(assistant):
    dialogue = Dialogue(assistant=assistant, images=[Image.new("RGB", (20, 10), "red")])
    first = dialogue.ask("What?", GREEDY)
    dialogue.ask("Why?", GREEDY)
    prompt = assistant.prompt([*dialogue.turns[:1], ("Why?", None)])
    assert prompt.endswith(f"USER: <image>\nWhat? ASSISTANT: {first}</s>USER: Why? ASSISTANT:")
    assert prompt.count("<image>") == prompt.count("</s>") == 1


def test_later_turns_are_routed_by_the_end_of_the_first(assistant, monkeypatch):
    seen = []

    def generate(ids, **given):
        seen.append((ids[0].tolist(), given["first_turn_lengths"]))
        return torch.tensor([[29871]])

    monkeypatch.setattr(assistant.model, "generate", generate)
    dialogue = Dialogue(assistant=assistant, images=[Image.new("RGB", (20, 10), "red")])
    dialogue.ask("What?", GREEDY)
    dialogue.ask("Why?", GREEDY)
    (first, (length,)), (whole, (again,)) = seen
    assert length == again == len(first) < len(whole)
    assert whole[:again] == first


def test_generation_stops_at_a_textual_end(assistant):
    stored = np.load(MM / "v01_v1_square.npz")
    whole = assistant.tokenizer.decode(stored["greedy_ids"][0], skip_special_tokens=True).strip()
    before, _, after = whole.partition("manha")
    assert after
    template = replace(conv_templates["llava_v0"], sep="manha")
    stopping = Assistant(**{**vars(assistant), "template": template})
    prompt = assistant.prompt([("<image>\nWhat color is the cat?", None)])
    images = [Image.fromarray(stored["image_0"])]
    assert stopping.answer(prompt, images, GREEDY) == before.strip()


class Echo:
    """Stands for a model: keeps what `generate` is asked and answers with fixed ids."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ids, **config):
        self.ids = ids
        self.config = SimpleNamespace(mm_use_im_start_end=False, **config)

    def generate(self, ids, **keywords):
        self.asked = keywords
        return torch.tensor([self.ids])


@pytest.fixture
def assistant_of():
    def build(template, tokenizer="tok_chatml_nonlegacy", answer="a cat", **fields):
        loaded = load_tokenizer(golden_root() / "common" / tokenizer)
        defaults = {"image_processor": None, "routing": None}
        return Assistant(
            model=Echo(loaded(answer).input_ids[1:]),
            tokenizer=loaded,
            template=conv_templates[template],
            **{**defaults, **fields},
        )

    return build


@pytest.mark.parametrize(
    ("template", "end", "expected"),
    [
        ("v1", "", {}),
        ("llava_llama_2", "", {}),
        ("mpt", "<|im_end|>", {"eos_token_id": [2, 1001]}),
        ("llava_v0", "###", {"stop_strings": ["###"]}),
    ],
)
def test_an_answer_ends_where_the_template_ends_it(assistant_of, template, end, expected):
    asked = assistant_of(template, answer=f"a cat{end}")
    assert asked.answer(asked.prompt([("What?", None)]), [], GREEDY) == "a cat"
    kept = {name: asked.model.asked.get(name) for name in ("eos_token_id", "stop_strings")}
    assert {name: value for name, value in kept.items() if value is not None} == expected


def test_sampling_fields_are_sent_only_when_sampling(assistant_of):
    asked = assistant_of("v1")
    asked.answer(asked.prompt([("What?", None)]), [], Decoding(temperature=0.5, top_p=0.9))
    assert (asked.model.asked["do_sample"], asked.model.asked["temperature"]) == (True, 0.5)
    asked.answer(asked.prompt([("What?", None)]), [], GREEDY)
    assert asked.model.asked["do_sample"] is False
    assert "temperature" not in asked.model.asked


def test_the_routing_token_ends_the_first_question_about_an_image(assistant_of):
    asked = assistant_of("v1", routing=("<R>", "first_turn"))
    prompt = asked.prompt([("<image>\nWhat?", "A cat."), ("Why?", None)])
    assert prompt.endswith("<image>\nWhat?<R> ASSISTANT: A cat.</s>USER: Why? ASSISTANT:")


@pytest.mark.parametrize(
    ("template", "start_end", "mark"),
    [
        ("v1", False, "<image>"),
        ("v1", True, "<im_start><image><im_end>"),
        ("v1_mmtag", False, "<Image><image></Image>"),
    ],
)
def test_an_image_is_marked_as_in_training(assistant_of, template, start_end, mark):
    asked = assistant_of(template)
    asked.model.config.mm_use_im_start_end = start_end
    assert asked.image_mark() == mark


def test_images_and_their_places_must_agree(assistant_of):
    asked = assistant_of("v1")
    with pytest.raises(ValueError, match="the prompt has 1 places for images, but there are 0 images"):
        asked.answer("<image>\nWhat?", [], GREEDY)
    with pytest.raises(ValueError, match="has no vision tower"):
        asked.answer("<image>\nWhat?", [Image.new("RGB", (2, 2))], GREEDY)


def test_images_with_unequal_numbers_of_crops_are_sent_as_a_list(assistant_of):
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    asked = assistant_of("v1", image_processor=processor)
    asked.model.config.image_aspect_ratio = "anyres"
    asked.model.config.image_grid_pinpoints = [(112, 56), (112, 112)]
    images = [Image.new("RGB", (100, 30)), Image.new("RGB", (60, 60))]
    asked.answer("<image>\n<image>\nWhich?", images, GREEDY)
    assert [item.shape[0] for item in asked.model.asked["images"]] == [3, 5]
    assert asked.model.asked["image_sizes"] == [(100, 30), (60, 60)]


def test_the_template_is_the_trained_one_and_not_guessed_from_a_name(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_template("llava_v1", None) == "llava_v1"
        assert choose_template("vicuna_v1", "v1") == "v1"  # two names of one template
    assert not caplog.records


def test_a_checkpoint_that_names_no_template_gets_llava_15s_with_a_notice(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_template(None, None) == "vicuna_v1"
    assert "names no conversation template; vicuna_v1 is used" in caplog.text
    assert conv_templates["vicuna_v1"].system.startswith("A chat between a curious user and")


def test_another_template_than_the_trained_one_is_used_with_a_notice(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_template("vicuna_v1", "llava_v1") == "llava_v1"
    assert "was trained with template vicuna_v1; --conv-mode asks for llava_v1" in caplog.text


def test_an_unknown_template_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="--conv-mode v9 is unknown; there are v1, vicuna_v1"):
        load_assistant("/no/such/checkpoint", conv_mode="v9")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or above, got -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or above, got nan"),
        ({"top_p": -0.1}, "top_p is a share of the probability, from 0 to 1, got -0.1"),
        ({"top_p": float("nan")}, "top_p is a share of the probability, from 0 to 1, got nan"),
        ({"num_beams": 0}, "num_beams must be 1 or more, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
    ],
)
def test_impossible_decoding_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**changes)


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = partial(quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield tmp_path, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_image_is_read_from_an_address(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, address = server
    Image.new("RGBA", (4, 3), "red").save(folder / "a.png")
    image = read_image(f"{address}/a.png")
    assert (image.mode, image.size) == ("RGB", (4, 3))
    with pytest.raises(ValueError, match=r"image http://.*/gone\.png can't be fetched and read: .*404"):
        read_image(f"{address}/gone.png")
    (folder / "b.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"b\.png can't be fetched and read: cannot identify image"):
        read_image(f"{address}/b.png")
    with pytest.raises(ValueError, match=r"b c\.png can't be fetched and read: URL can't contain control"):
        read_image(f"{address}/b c.png")
