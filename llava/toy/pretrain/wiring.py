"""The start of the tiny base: embeddings and attention wired so that it learns to read in minutes, not hours.

The wiring is a start only, every weight is trained. Shapes: D model width, h head width (D / 2).

* Words of the world have orthogonal embeddings; all words share one more direction, the common one. A cell
  is the sum of four words, so the common direction is stronger in it: that tells cells from words.
* A second shared direction, the textual one, is positive in places and in words without a meaning of their
  own, and negative in digits and colors, so that it vanishes in a cell: that tells words from cells.
* Head 0 of the first layer, and head 1 of every other layer after that, look at the last few words. Head 1
  of the first layer looks further back for how often to jump.
* Head 0 of the other layers looks up a cell: it matches rows and columns, and copies digit and color. In the
  first of them the digit also replaces the row, so that each of these layers makes a jump.
* Head 1 of the layers between matches digits and colors.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP

_SHARED = 0.5
"""Length of each shared direction in a word's embedding; the word's own part has length 1."""
_MATCH = 3.5
"""Scale of queries and keys that match words."""
_CELLS_FIRST = 15.0
"""Scale of the common direction in queries and keys: how much cells are preferred to words."""
_LOOKUP_OUT = 0.3
"""How much of a cell's (normed) words a lookup adds."""
_FIRST_LOCAL_OUT = 1.0
_LATER_LOCAL_OUT = 0.0
"""How much local heads pass on; what is worth copying in later layers is left to training."""
_SEARCH = 1.5
_SEARCH_OUT = 1.0
_NUM_HOPS = 3
"""Layers behind the first whose lookups jump."""
_HOP_OUT = 0.6
"""How much of the next row a jump adds, and how much of the last one it takes away."""
_NOISE = 0.005


def wire(model: LlamaForCausalLM, groups: dict[str, list[int]]) -> None:
    """Set the start; `groups` are the token ids of the rows, columns, digits, colors, emptiness and jumps."""
    layers = cast(Sequence[LlamaDecoderLayer], model.model.layers)
    with torch.no_grad():
        parts, common, textual = _embed(model, groups)
        for index, layer in enumerate(layers):
            _randomise(layer.self_attn, layer.mlp, 2 * model.config.num_hidden_layers)
            places = torch.cat([parts["row"], parts["column"]])  # (16, D)
            contents = torch.cat([parts["digit"], parts["color"], parts["empty"]])  # (15, D)
            words = torch.cat([places, contents])  # (31, D)
            if index == 0:
                _wire_local(layer.self_attn, 0, textual, words, gain=1.5, out=_FIRST_LOCAL_OUT)
                _wire_search(layer.self_attn, 1, textual, parts["times"])
                continue
            is_hop = index <= _NUM_HOPS
            values = torch.cat([contents, parts["row"]]) if is_hop else contents
            _wire_match(layer.self_attn, 0, common, places, values)
            if is_hop:
                _wire_hop(layer.self_attn, parts)
            if index % 2 == 0:
                _wire_local(layer.self_attn, 1, textual, words, gain=0.5, out=_LATER_LOCAL_OUT)
            else:
                _wire_match(layer.self_attn, 1, common, contents, torch.cat([contents, textual[None]]))


def _wire_hop(attention: LlamaAttention, parts: dict[str, Tensor]) -> None:
    """Let head 0 move on: what it read replaces the row it came from, as a digit names the next row."""
    outputs = attention.o_proj.weight[:, _head(attention, 0)]  # (D, h), a view
    num_contents = sum(len(parts[name]) for name in ("digit", "color", "empty"))
    outputs[:, : len(parts["digit"])] += _HOP_OUT * parts["row"].T
    rows = slice(num_contents, num_contents + len(parts["row"]))
    outputs[:, rows] -= (_LOOKUP_OUT + _HOP_OUT) * parts["row"].T


def _embed(model: LlamaForCausalLM, groups: dict[str, list[int]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Set embeddings and head; return each group's directions, the common and the textual one (D,)."""
    words = model.model.embed_tokens.weight  # (V, D)
    basis = torch.linalg.qr(torch.randn(words.shape[1], words.shape[1]))[0]  # (D, D), one direction per row
    special = [index for group in groups.values() for index in group]
    common, textual, free = basis[-1], basis[-2], basis[len(special) : -2]
    words.copy_(functional.normalize(torch.randn(len(words), len(free)) @ free, dim=-1))
    words[special] = basis[: len(special)]
    model.lm_head.weight.copy_(words)
    parts = {name: words[group].clone() for name, group in groups.items()}
    signs = torch.ones(len(words), 1)
    for name, sign in {"digit": -1, "color": -1, "empty": -2}.items():
        signs[groups[name]] = sign
    words += _SHARED * common + _SHARED * signs * textual
    return parts, common, textual


def _randomise(attention: LlamaAttention, mlp: LlamaMLP, num_branches: int) -> None:
    """Small random weights; what a layer adds is scaled down with the number of branches."""
    for weight in attention.parameters():
        weight.normal_(0, weight.shape[1] ** -0.5)
    for name, weight in mlp.named_parameters():
        scale = num_branches**-0.5 if name.startswith("down_proj") else 1.0
        weight.normal_(0, scale * weight.shape[1] ** -0.5)
    attention.o_proj.weight.mul_(num_branches**-0.5)


def _head(attention: LlamaAttention, head: int) -> slice:
    return slice(head * attention.head_dim, (head + 1) * attention.head_dim)


def _wire_local(
    attention: LlamaAttention, head: int, textual: Tensor, words: Tensor, *, gain: float, out: float
) -> None:
    """Look at the last few words: constant queries and keys in rotary pairs that turn within a few tokens."""
    rows = _head(attention, head)
    # In a word's normed state the textual direction has size sqrt(D) * 0.3 / sqrt(1 + 2 * 0.09).
    size = len(textual) ** 0.5 * _SHARED / (1 + 2 * _SHARED**2) ** 0.5
    scale = (gain * attention.head_dim**0.5) ** 0.5 / size
    for projection in (attention.q_proj, attention.k_proj):
        part = projection.weight[rows]  # a view (h, D)
        part.normal_(0, _NOISE)
        part[1:4] += scale * textual
    _copy_words(attention, head, words, out)


def _wire_search(attention: LlamaAttention, head: int, textual: Tensor, words: Tensor) -> None:
    """Look for `words` wherever they are, the nearest first, and copy them."""
    rows = _head(attention, head)
    queries, keys = attention.q_proj.weight[rows], attention.k_proj.weight[rows]  # views (h, D)
    for part in (queries, keys):
        part.normal_(0, _NOISE)
    # These rotary pairs turn by 0.18, 0.07 and 0.03 per token: one sentence back still counts.
    queries[2:5] += _SEARCH * textual
    keys[2:5] += _SEARCH * words.sum(0)
    _copy_words(attention, head, words, _SEARCH_OUT)


def _wire_match(attention: LlamaAttention, head: int, common: Tensor, keys: Tensor, values: Tensor) -> None:
    """Look at cells that share words of `keys`, and copy their words of `values`."""
    rows = _head(attention, head)
    half = attention.head_dim // 2
    # Rotary pairs (i, i + half) from 7 on hardly turn over the length of a prompt.
    slots = [*range(7, half), *range(half + 7, 2 * half)]
    for projection in (attention.q_proj, attention.k_proj):
        part = projection.weight[rows]
        part.normal_(0, _NOISE)
        part[slots[: len(keys)]] += _MATCH * keys
        part[slots[-1]] += _CELLS_FIRST * common
    _copy_words(attention, head, values, _LOOKUP_OUT)


def _copy_words(attention: LlamaAttention, head: int, words: Tensor, out: float) -> None:
    """Values carry the given words, and the output adds them to the state."""
    rows = _head(attention, head)
    values, outputs = attention.v_proj.weight[rows], attention.o_proj.weight[:, rows]
    values.normal_(0, _NOISE)
    values[: len(words)] += words
    outputs.normal_(0, _NOISE)
    outputs[:, : len(words)] += out * words.T
