"""Every attention implementation gives the same states; those that know nothing of packing are refused."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from dpn.attention import IMPLEMENTATIONS, Packing, flash_varlen
from tests.dpn.pyramids import make_batch, make_config, make_model

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}
"""In float32 on a CPU, for states of about unit scale."""
KERNELS = ["packed", "sdpa", "eager"]
LENGTHS = (5, 1, 7)


def slow_attention(query, key, value, lengths):
    """Softmax of every row's scores against its own sample's earlier rows, one at a time: (1, N, H, C)."""
    _, heads, rows, width = query.shape
    groups = heads // key.shape[1]
    output, start = torch.zeros(1, rows, heads, width), 0
    for length in lengths:
        for row in range(start, start + length):
            for head in range(heads):
                seen = slice(start, row + 1)
                scores = key[0, head // groups, seen] @ query[0, head, row] * width**-0.5
                output[0, row, head] = scores.softmax(0) @ value[0, head // groups, seen]
        start += length
    return output


def make_states(lengths=LENGTHS, heads=4, groups=2, width=8):
    torch.manual_seed(0)
    rows = sum(lengths)
    query, key = torch.randn(1, heads, rows, width), torch.randn(1, groups, rows, width)
    packing = Packing(tuple(lengths), torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32))
    return query, key, torch.randn(1, groups, rows, width), packing


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4), (6,)])
def test_a_kernel_is_causal_attention_within_every_sample(name, lengths):
    query, key, value, packing = make_states(lengths)
    attend = AttentionInterface()[IMPLEMENTATIONS[name]]
    output, weights = attend(torch.nn.Module(), query, key, value, None, packing=packing)
    torch.testing.assert_close(output, slow_attention(query, key, value, lengths), **TOLERANCE)
    assert weights is None


def with_implementation(name):
    model = make_model(make_config(gate="probability"))
    model.set_attn_implementation(name)
    assert model.config._attn_implementation == IMPLEMENTATIONS[name]
    return model


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_prefill_decoding_and_gradients_are_those_of_the_default(samples, name):
    results = []
    for model in (make_model(make_config(gate="probability")), with_implementation(name)):
        batch, cache = make_batch(samples, "left"), DynamicCache()
        routes = torch.tensor([[1, 0, 2], [2, 2, 2], [2, 1, 0], [0, 2, 1]])
        prefill = model(**batch, routes=routes, past_key_values=cache).last_hidden_state
        mask = torch.cat([batch["attention_mask"], torch.ones(4, 2, dtype=torch.long)], dim=1)
        new = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(1))
        step = model(inputs_embeds=new, attention_mask=mask, past_key_values=cache).last_hidden_state
        trained = model(**batch, routes=routes, use_cache=False).last_hidden_state
        (trained * torch.linspace(-1, 1, trained.numel()).reshape(trained.shape)).sum().backward()
        gradient = model.layers[1].self_attn.q_proj.weight.grad
        assert gradient.abs().max() > 1
        results.append((prefill.detach(), step.detach(), gradient))
    for default, other in zip(*results, strict=True):
        torch.testing.assert_close(other, default, atol=2e-5 * float(default.abs().max()), rtol=1e-5)
    assert not torch.equal(results[0][0], results[1][0]) or name == "sdpa"  # eager really is another path


def test_attn_implementation_is_chosen_when_a_model_is_loaded(tmp_path):
    make_model(make_config()).save_pretrained(tmp_path)
    model = type(make_model(make_config()))
    for asked, used in ((None, "packed"), ("eager", "packed_eager"), ("sdpa", "packed_sdpa")):
        loaded = model.from_pretrained(tmp_path, attn_implementation=asked)
        assert loaded.config._attn_implementation == used
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", ["flex_attention", "flash_attention_3", "sdpaa"])
def test_an_implementation_that_knows_nothing_of_packing_is_refused(tmp_path, name):
    model = make_model(make_config())
    with pytest.raises((ValueError, ImportError), match=name):
        model.set_attn_implementation(name)
    assert model.config._attn_implementation == "packed"
    model.save_pretrained(tmp_path)
    with pytest.raises((ValueError, ImportError), match=name):
        type(model).from_pretrained(tmp_path, attn_implementation=name)


def test_flash_attn_is_refused_where_it_is_missing_and_on_a_cpu(monkeypatch, samples):
    with pytest.raises(ValueError, match="needs the package flash-attn"):
        make_model(make_config()).set_attn_implementation("flash_attention_2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(name=name))
    model = with_implementation("flash_attention_2")
    with pytest.raises(ValueError, match=r"runs on CUDA in float16 or bfloat16.*cpu in torch.float32"):
        model(**make_batch(samples))


def test_flash_attn_is_told_where_samples_begin_and_end(monkeypatch):
    """A stand-in with flash-attn's signature attends sample by sample, so only the call is tested here."""

    def stand_in(q, k, v, cu_q, cu_k, max_q, max_k, *, dropout_p, softmax_scale, causal):  # noqa: PLR0913
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert (max_q, max_k, dropout_p, causal) == (max(LENGTHS), max(LENGTHS), 0.0, True)
        parts = []
        for low, high in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), strict=True):
            rows = [states[low:high].transpose(0, 1)[None] for states in (q, k, v)]
            options = {"is_causal": True, "scale": softmax_scale, "enable_gqa": True}
            parts.append(functional.scaled_dot_product_attention(*rows, **options)[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=stand_in))
    query, key, value, packing = make_states()
    output = flash_varlen(query, key, value, packing, 8**-0.5, 0.0)
    torch.testing.assert_close(output, slow_attention(query, key, value, LENGTHS), **TOLERANCE)


def test_a_plain_decoder_keeps_the_implementations_of_transformers():
    model = make_model()
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torchs_variable_length_kernel_is_causal_attention_within_every_sample():
    query, key, value, packing = make_states((50, 1, 70), width=64)
    packing = Packing(packing.lengths, packing.cumulative.cuda())
    states = [states.cuda().bfloat16() for states in (query, key, value)]
    output, _ = AttentionInterface()["packed"](torch.nn.Module(), *states, None, packing=packing)
    expected = slow_attention(query, key, value, packing.lengths)
    torch.testing.assert_close(output.cpu().float(), expected, atol=2e-2, rtol=2e-2)
