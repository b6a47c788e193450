"""The tiny models: they load as CLIP and Vicuna do, and the base has been taught on words alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPVisionModel, LlamaForCausalLM
from transformers.utils import logging

from llava.toy.generate import BASE
from llava.toy.pretrain.batches import READING, TextSource, attention_mask
from llava.toy.pretrain.llama import CURRICULUM, measure, predict, soft_cells, train_base
from llava.toy.questions import SUFFIX, all_words
from llava.toy.render import render
from llava.toy.tokenizer import SYSTEM, train_tokenizer
from llava.toy.world import random_scene


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE / "vicuna-tiny")


def test_each_word_of_the_world_and_of_the_template_is_one_piece(tokenizer):
    words = [
        *all_words(),
        *SYSTEM.replace(".", "").replace(",", "").replace("'s", "").split(),
        "USER",
        "ASSISTANT",
    ]
    assert [word for word in words if len(tokenizer(word, add_special_tokens=False)["input_ids"]) != 1] == []


def test_special_pieces_are_llamas(tokenizer):
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("")["input_ids"] == [1]
    assert tokenizer.convert_ids_to_tokens(tokenizer("</s>USER")["input_ids"]) == ["<s>", "</s>", "USER"]


def test_unknown_characters_fall_back_to_bytes(tokenizer):
    assert tokenizer.decode(tokenizer("é\n", add_special_tokens=False)["input_ids"]) == "é\n"


def test_prompts_come_back_from_their_pieces(tokenizer):
    text = f"{SYSTEM} USER: \nWhich digit is at row two, column R?{SUFFIX} ASSISTANT: 3"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_tokenizer_is_made_the_same_way_each_time(tmp_path):
    train_tokenizer(tmp_path / "a")
    train_tokenizer(tmp_path / "b")
    first, second = ((tmp_path / name / "tokenizer.model").read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_tower_loads_completely_and_sees_64_patches():
    tower, info = CLIPVisionModel.from_pretrained(BASE / "clip-tiny", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    processor = CLIPImageProcessorPil.from_pretrained(BASE / "clip-tiny")
    rng = np.random.default_rng(0)
    pixels = processor(render(random_scene(rng), rng), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = tower(pixels.to(tower.dtype), output_hidden_states=True).hidden_states
    assert states[-2].shape == (1, 65, 96)
    assert torch.isfinite(states[-2]).all()


def test_the_base_reads_boards_made_of_words(tokenizer):
    base = LlamaForCausalLM.from_pretrained(BASE / "vicuna-tiny", dtype=torch.float32)
    accuracy = measure(base, TextSource(tokenizer, np.random.default_rng(99), READING), num_batches=1)
    assert accuracy["digit"] > 0.9
    assert accuracy["exist"] > 0.85


def test_a_cell_is_the_sum_of_its_words():
    words = torch.eye(5)
    cells = soft_cells(words, torch.tensor([[[0, 2, 3, -1]]]))
    assert cells.tolist() == [[[1, 0, 1, 1, 0]]]


def test_a_block_of_text_sees_the_start_and_itself():
    mask = attention_mask(torch.tensor([[0, 1, 1, 2, -1]]))[0, 0] == 0
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


def test_the_answer_is_predicted_where_a_chat_would_predict_it(tokenizer):
    source = TextSource(tokenizer, np.random.default_rng(1), READING)
    batch = source.batch(2)
    for row, position, _ in batch.answers:
        assert tokenizer.decode([int(batch.ids[row, position])]) == ":"
        assert batch.targets[row, position] == batch.ids[row, position + 1]
    assert (batch.positions[:, batch.first_cell] == len(source.start)).all()


@pytest.fixture
def one_thread():
    """As the command has it; with several threads the order of sums, and so the last digits, vary."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_pretraining_runs_and_is_deterministic(tmp_path):
    logging.disable_progress_bar()
    short = [replace(phase, steps=1) for phase in CURRICULUM]
    folders = [tmp_path / name for name in ("a", "b")]
    quality = [train_base(folder, lambda _: None, curriculum=short, batch=2) for folder in folders]
    assert quality[0] == quality[1]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_was_cut_off_goes_on_behind_its_last_finished_phase_and_ends_at_the_same_weights(tmp_path):
    logging.disable_progress_bar()
    short = [replace(phase, steps=1) for phase in CURRICULUM[2:4]]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_base(whole, lambda _: None, curriculum=short, batch=2)
    train_base(cut, lambda _: None, curriculum=short[:1], batch=2)
    lines = []
    train_base(cut, lines.append, curriculum=short, batch=2)
    assert lines[0] == "base, phase 1: done before"
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="made by another curriculum"):
        train_base(cut, lambda _: None, curriculum=short, batch=3)


@pytest.mark.usefixtures("one_thread")
def test_a_snapshot_can_be_looked_at_and_is_not_taken_for_a_finished_phase(tmp_path):
    logging.disable_progress_bar()
    phase = replace(CURRICULUM[2], steps=2, snapshot_every=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_base(whole, lambda _: None, curriculum=[phase], batch=2)

    def stop(line):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="2/2"):
        train_base(cut, stop, curriculum=[phase], batch=2)
    LlamaForCausalLM.from_pretrained(tmp_path / "cut-phases" / "1")
    lines = []
    train_base(cut, lines.append, curriculum=[phase], batch=2)
    assert "2/2" in lines[0]
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_packed_blocks_are_predicted_as_if_each_stood_alone(tokenizer):
    base = LlamaForCausalLM.from_pretrained(BASE / "vicuna-tiny", dtype=torch.float32)
    sample = TextSource(tokenizer, np.random.default_rng(2), READING).batch(1)
    with torch.no_grad():
        packed, targets = predict(base, sample)
        keep = (sample.blocks[0] == 0) | (sample.blocks[0] == 3)
        embeds = base.model.embed_tokens(sample.ids)
        first = sample.first_cell
        embeds[:, first : first + 64] = soft_cells(base.model.embed_tokens.weight, sample.cell_words)
        alone = base(inputs_embeds=embeds[:, keep]).logits[0, sample.targets[0, keep] >= 0]
    is_third = sample.blocks[0, sample.targets[0] >= 0] == 3
    torch.testing.assert_close(packed[is_third], alone, rtol=1e-3, atol=1e-3)
    assert len(targets) == len(packed)
