"""Key/value caches whose layers hold different numbers of tokens.

Stage 0 keeps the caller's padded form, so that its length is the logical length that `generate()` counts
with. Later stages hold fewer tokens, left-padded; each layer of a stage knows which of its cells are real and
how far positions moved. Shapes: B samples, G key/value heads, L logical prompt length, P cells of a stage, C
head width.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.cache_utils import Cache, DynamicLayer

from dpn.routing import Routing


class PyramidLayer(DynamicLayer):
    """A growing cache layer that remembers how its stage was packed in the prefill."""

    prefix_mask: Tensor | None = None
    """(B, P) bool: real cells of the prefill."""
    shift: Tensor | None = None
    """(B,) logical position minus this stage's position, for every token after the prefill."""
    logical_length: int = 0
    """L: columns of the caller's attention mask that the prefill covered."""
    routing: Routing | None = None
    """Decisions of the prefill that filled this cache (first layer only)."""
    stamp: str | None = None
    """Of the decoder that filled this cache."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, G, Q, C); the first ones are kept as they are instead of copied."""
        if self.is_initialized and self.keys is not None and self.keys.numel():
            return super().update(key_states, value_states, *args, **kwargs)
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        return key_states, value_states

    def remember(self, prefix_mask: Tensor, shift: Tensor, logical_length: int) -> None:
        """Note what the prefill left in this layer."""
        self.prefix_mask, self.shift, self.logical_length = prefix_mask, shift, logical_length

    def view(self, attention_mask: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Translate the caller's mask (B, L + new) and positions (B, Q) into this stage's."""
        if self.prefix_mask is None or self.shift is None:
            return attention_mask, position_ids
        later = attention_mask[:, self.logical_length :].to(self.prefix_mask)
        positions = position_ids.to(self.shift.device) - self.shift[:, None]  # stages may lie apart
        return torch.cat([self.prefix_mask, later], dim=1), positions

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams."""
        super().reorder_cache(beam_idx)
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch."""
        super().batch_select_indices(indices)
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch."""
        super().batch_repeat_interleave(repeats)
        if self.prefix_mask is not None and self.shift is not None:
            self.prefix_mask = self.prefix_mask.repeat_interleave(repeats, dim=0)
            self.shift = self.shift.repeat_interleave(repeats, dim=0)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.prefix_mask = self.shift = self.routing = self.stamp = None
        self.logical_length = 0

    def _select(self, indices: Tensor) -> None:
        if self.prefix_mask is not None and self.shift is not None:
            self.prefix_mask = self.prefix_mask[indices.to(self.prefix_mask.device)]
            self.shift = self.shift[indices.to(self.shift.device)]


def adopt(cache: Cache, num_layers: int, stamp: str) -> None:
    """Give a caller's empty dynamic cache our layers, in place, with the stamp of the decoder that fills it.

    `generate()` keeps the object that it was given, so a new one would be lost.

    Raises:
        ValueError: a static, quantised or sliding cache, which would lose its own behaviour.
    """
    kinds = {type(layer) for layer in cache.layers} - {DynamicLayer, PyramidLayer}
    if kinds or cache.layer_class_to_replicate not in (None, DynamicLayer, PyramidLayer):
        named = ", ".join(kind.__name__ for kind in kinds) or cache.layer_class_to_replicate
        raise ValueError(
            f"the pyramid shortens its cache from stage to stage and supports DynamicCache only, got "
            f"layers of type "
            f"{named}; leave cache_implementation unset or pass past_key_values=DynamicCache()"
        )
    cache.layers[:] = [PyramidLayer() for _ in range(num_layers)]
    pyramid_layer(cache, 0).stamp = stamp


def pyramid_layer(cache: Cache, index: int) -> PyramidLayer:
    """Give a layer that `adopt` has put there."""
    layer = cache.layers[index]
    assert isinstance(layer, PyramidLayer)
    return layer


def check_belongs(
    cache: Cache, config: LlamaConfig, batch: int, dpe_layers: tuple[int, ...], stamp: str
) -> None:
    """Refuse to go on from a cache that another model, or another batch, has filled.

    A cache that a reduced decoder filled bears its stamp; others are known by their shapes only. Nothing is
    read from the device.

    Args:
        cache: empty or filled.
        config: of the decoder that is to go on.
        batch: its number of rows.
        dpe_layers: where it reduces tokens, () without a reduction.
        stamp: of the decoder that is to go on.

    Raises:
        ValueError: naming what differs.
    """
    if not cache.get_seq_length():
        return
    routing, keys = routing_of(cache), getattr(cache.layers[0], "keys", None)
    differences = []
    if len(cache.layers) != config.num_hidden_layers:
        differences.append(f"it has {len(cache.layers)} layers, the decoder {config.num_hidden_layers}")
    if keys is not None and keys.ndim == 4:
        width = config.head_dim or config.hidden_size // config.num_attention_heads
        expected = (config.num_key_value_heads, width)
        if (keys.shape[1], keys.shape[3]) != expected:
            differences.append(f"its heads x width are {(keys.shape[1], keys.shape[3])}, not {expected}")
        if keys.shape[0] != batch:
            differences.append(f"it holds {keys.shape[0]} rows (prompts x beams), the new ids {batch}")
    if routing is not None and routing.layers != dpe_layers:
        differences.append(f"it was pooled in front of the layers {routing.layers}, not {dpe_layers}")
    first = cache.layers[0]
    filled_by = first.stamp if isinstance(first, PyramidLayer) else None
    if not differences and filled_by not in (None, stamp):
        differences.append("another loaded model filled it")
    if differences:
        raise ValueError(
            f"past_key_values comes from another model or batch: {'; '.join(differences)}. Give the cache "
            f"that this model returned for these rows, or leave it out and give the whole dialogue"
        )


def full_mask(cache: Cache | None, mask: Tensor | None, batch: int, new: int, device: torch.device) -> Tensor:
    """Give the caller's mask over everything cached and `new` tokens: (B, past + new).

    Args:
        cache: None and an empty one hold nothing.
        mask: (B, past + new); None means that all tokens are real but for the padding of the prefill.
        batch: B.
        new: tokens behind the cache.
        device: of a new mask.

    Raises:
        ValueError: a mask of another width.
    """
    past = 0 if cache is None else cache.get_seq_length()
    if mask is not None:
        if mask.ndim == 2 and mask.shape[1] != past + new:
            raise ValueError(
                f"attention_mask covers {mask.shape[1]} tokens, the cache holds {past} and {new} are new; "
                f"give a mask over all {past + new}, or none"
            )
        return mask
    ones = torch.ones(batch, past + new, dtype=torch.bool, device=device)
    prefix = None if cache is None else past_mask(cache)
    if prefix is not None:
        ones[:, : prefix.shape[1]] = prefix.to(device)
    return ones


def past_mask(cache: Cache) -> Tensor | None:
    """Give the mask of the prefill that filled a cache (B, L); None where it wasn't routed or is empty."""
    first = cache.layers[0] if cache.layers else None
    return first.prefix_mask if isinstance(first, PyramidLayer) else None


def lengths(cache: Cache) -> list[int]:
    """Give the number of cells of every layer, padding of the batch included."""
    return [cache.get_seq_length(index) for index in range(len(cache.layers))]


def routing_of(cache: Cache) -> Routing | None:
    """Give the decisions of the prefill that filled a cache, or None where nothing was routed."""
    first = cache.layers[0] if cache.layers else None
    return first.routing if isinstance(first, PyramidLayer) else None
