"""Key/value caches whose layers hold different numbers of tokens.

Stage 0 keeps the caller's padded form, so that its length is the logical length that `generate()` counts
with. Later stages hold fewer tokens, left-padded; each layer of a stage knows which of its cells are real and
how far positions moved. Shapes: B samples, G key/value heads, L logical prompt length, P cells of a stage, C
head width.
"""

import torch
from torch import Tensor
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

    def remember(self, prefix_mask: Tensor, shift: Tensor, logical_length: int) -> None:
        """Note what the prefill left in this layer."""
        self.prefix_mask, self.shift, self.logical_length = prefix_mask, shift, logical_length

    def view(self, attention_mask: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Translate the caller's mask (B, L + new) and positions (B, Q) into this stage's."""
        if self.prefix_mask is None or self.shift is None:
            return attention_mask, position_ids
        later = attention_mask[:, self.logical_length :].to(self.prefix_mask)
        return torch.cat([self.prefix_mask, later], dim=1), position_ids - self.shift[:, None]

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
        self.prefix_mask = self.shift = self.routing = None
        self.logical_length = 0

    def _select(self, indices: Tensor) -> None:
        if self.prefix_mask is not None and self.shift is not None:
            self.prefix_mask = self.prefix_mask[indices.to(self.prefix_mask.device)]
            self.shift = self.shift[indices.to(self.shift.device)]


def adopt(cache: Cache, num_layers: int) -> None:
    """Give a caller's empty dynamic cache our layers, in place.

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


def lengths(cache: Cache) -> list[int]:
    """Give the number of cells of every layer, padding of the batch included."""
    return [cache.get_seq_length(index) for index in range(len(cache.layers))]


def routing_of(cache: Cache) -> Routing | None:
    """Give the decisions of the prefill that filled a cache, or None where nothing was routed."""
    first = cache.layers[0] if cache.layers else None
    return first.routing if isinstance(first, PyramidLayer) else None
