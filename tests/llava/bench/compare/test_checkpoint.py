"""A real checkpoint brings sizes and weights; every contender holds its tensors."""

import pytest
import torch

from llava.bench.compare.arguments import parse
from llava.bench.compare.contenders import build_contenders, wanted
from llava.bench.compare.counting import count
from llava.bench.inputs import make_batch


def saved(tiny_llava, path, *words, **options):
    tokenizer, model, _ = tiny_llava(*words, **options)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model


def contenders(path, *methods):
    arguments = parse(
        [
            "--model_path",
            str(path),
            "--text",
            "20",
            "--device",
            "cpu",
            "--budgets",
            "0.5",
            "--methods",
            *methods,
        ]
    )
    found, _ = wanted(arguments)
    return arguments, list(build_contenders(found, arguments))


@pytest.mark.parametrize("words", [(), ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")])
def test_all_models_hold_the_checkpoints_tensors_and_only_they_answer_as_it_does(tiny_llava, tmp_path, words):
    model = saved(tiny_llava, tmp_path, *words)
    arguments, found = contenders(tmp_path, "dpn", "fastv", "resampler")
    assert (arguments.shape.visual, arguments.shape.num_layers, arguments.shape.vocab_size) == (16, 4, 1000)
    dense, *others = (one.model for one in found)
    assert torch.equal(dense.lm_head.weight, model.lm_head.weight)
    for other in others:
        shared = "model.layers.2.mlp.up_proj.weight"
        assert other.get_parameter(shared).data_ptr() == dense.get_parameter(shared).data_ptr()
    batch = make_batch(dense, arguments.shape, size=2, seed=0, has_tower=True)
    assert [one.name for one in found] == ["dense", "dpn@0.5", "fastv@0.5", "resampler@0.5"]
    for one in found:
        facts = count(one, batch, one.teach(batch))
        assert facts.share == pytest.approx(one.share, abs=1e-6)
        answer = one.model.generate(**one.inputs(batch), max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert answer.shape == (2, 4)


def test_a_checkpoint_whose_dense_model_is_not_plain_llava_is_refused(tiny_llava, tmp_path):
    saved(tiny_llava, tmp_path, mm_projector_type="average_pool")
    with pytest.raises(ValueError, match=r"mm_projector_type=average_pool .* plain LLaVA"):
        _ = parse(["--model_path", str(tmp_path)]).shape


def test_sizes_beside_a_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--hidden_size, --grid was given, too"):
        parse(["--model_path", str(tmp_path), "--hidden_size", "64", "--grid", "8"])
