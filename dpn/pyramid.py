"""The decoder whose sequence gets shorter from stage to stage.

The layers are transformers' Llama layers, the loop around them is ours.

A stage is a run of layers between two places where tokens are reduced; masks, packing and rotary embeddings
are made once per stage. Training and prefill run packed (no padding anywhere), decoding runs padded against
a cache with one length per stage.

Shapes: B samples, L padded length, N packed rows, S places (DPN: DPE layers), I images of a sample, D model
width.
"""

import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging

from dpn.attention import Packing, PacksSamples, packed_implementation
from dpn.build import build_reducer
from dpn.cache import PyramidLayer, adopt, check_belongs, full_mask, pyramid_layer
from dpn.checks import check_shift, forced_routes, refuse_unserved
from dpn.experts import to_device
from dpn.layout import Layout
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import Routing
from dpn.spans import VISUAL
from dpn.stage import StagePlan
from dpn.tap import AttentionTap

logger = logging.get_logger(__name__)


class PyramidLlamaConfig(LlamaConfig):
    """Llama's configuration and the reduction that acts in it."""

    model_type = "pyramid_llama"

    reduction: dict[str, Any] | None = None
    """`to_dict()` of a method's configuration (dpn/methods.py), or None for a plain decoder."""


@dataclass
class PyramidOutput(BaseModelOutputWithPast):
    """Output of a reduced forward pass. `last_hidden_state` is packed, (1, M, D), where `layout` is given."""

    layout: Layout | None = None
    """Where the rows of the last stage lie."""
    routing: Routing | None = None
    """What was decided, and the tokens of every stage."""


class PyramidLlamaModel(PacksSamples, LlamaModel):
    """Llama with a reducer between its layers; without one it is `LlamaModel`, bit for bit."""

    config: PyramidLlamaConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _skip_keys_device_placement = ["past_key_values", "kv_sink"]  # noqa: RUF012 - transformers declares it so
    _no_split_modules = ["LlamaDecoderLayer", "DynamicPyramid"]  # noqa: RUF012

    def __init__(self, config: PyramidLlamaConfig) -> None:
        super().__init__(config)
        self.reducer: TokenReducer | None = build_reducer(
            config.reduction,
            width=config.hidden_size,
            num_layers=config.num_hidden_layers,
            intermediate_size=config.intermediate_size,
        )
        if self.reducer is not None:
            packed_implementation(config._attn_implementation)  # a kernel from the hub would come unasked
        self.cache_stamp = uuid.uuid4().hex  # nothing else tells the caches of two checkpoints apart
        self.post_init()

    @property
    def stages(self) -> list[tuple[int, int]]:
        """First layer and end of every stage."""
        places = () if self.reducer is None else self.reducer.layers
        bounds = [0, *places, self.config.num_hidden_layers]
        return list(pairwise(bounds))

    def forward(  # noqa: PLR0913, PLR0917 - transformers' signature
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        mm_token_type_ids: Tensor | None = None,
        visual_grids: Tensor | None = None,
        routes: Tensor | None = None,
        router_shift: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder.

        Args:
            input_ids: (B, L), or give inputs_embeds.
            attention_mask: (B, L) or (B, past + L), zero at padding.
            position_ids: (B, L); packed passes number every sample's tokens from 0 themselves.
            past_key_values: filled in place; its layers end up with different lengths.
            inputs_embeds: (B, L, D).
            use_cache: whether to make a cache where none is given; the default is the config's, and never in
                training.
            mm_token_type_ids: (B, L) structure of the prompt (dpn/spans.py); without it nothing is reduced.
            visual_grids: (B, I, 2) rows and columns of every image.
            routes: (B, S) expert indices to force, negative where the router decides; like the shift they
                act where a prompt with images is read, and not in the steps behind it.
            router_shift: (B,) what moves every sample's choices towards cheaper experts (dpn/budget.py).
            kwargs: passed to transformers' loop where there is no reducer.

        Raises:
            ValueError: a reduced pass is asked for intermediate states or attention weights; routes or a
                shift don't fit, grids are unknown, mask or structure have another
                shape, the cache is another model's.
        """
        given = inputs_embeds if input_ids is None else input_ids
        if past_key_values is not None and given is not None:
            layers = () if self.reducer is None else self.reducer.layers
            check_belongs(past_key_values, self.config, len(given), layers, self.cache_stamp)
        refuse_unserved(self.reducer, self.config, routes, router_shift, kwargs)
        if self.reducer is None:
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                **kwargs,
            )
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cached = past_key_values.get_seq_length() if past_key_values is not None else 0
        wants_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        if wants_cache and past_key_values is None:
            past_key_values = DynamicCache()
        if mm_token_type_ids is not None and cached == 0:
            if visual_grids is None:
                visual_grids = torch.zeros(len(embeds), 0, 2, dtype=torch.long)
            needs_grids = bool(self.reducer.config.windows)
            if mm_token_type_ids.shape != embeds.shape[:2]:
                raise ValueError(
                    f"mm_token_type_ids describe {tuple(mm_token_type_ids.shape)} tokens, the prompts have "
                    f"{tuple(embeds.shape[:2])}"
                )
            layout = Layout.from_padded(
                mm_token_type_ids, attention_mask, visual_grids, needs_grids=needs_grids
            )
            return self._packed(embeds, layout, past_key_values, routes, router_shift)
        if mm_token_type_ids is not None and (mm_token_type_ids >= VISUAL).any():
            logger.warning(
                "an image behind a cached prompt runs unreduced; prefill the whole dialogue to route it"
            )
        return self._padded(embeds, attention_mask, position_ids, past_key_values)

    def _packed(
        self,
        embeds: Tensor,
        layout: Layout,
        cache: Cache | None,
        routes: Tensor | None,
        router_shift: Tensor | None,
    ) -> PyramidOutput:
        """Training and prefill: embeds (B, L, D) to packed states (1, M, D)."""
        assert self.reducer is not None
        batch, length, width = embeds.shape
        if router_shift is not None:
            check_shift(router_shift, batch)
        hidden = embeds.reshape(batch * length, width)[to_device(layout.origin, embeds.device)]  # (N, D)
        first, routing = layout, self.reducer.new_routing(layout, router_shift)
        forced = None
        if routes is not None:
            forced = forced_routes(routes, batch, len(self.reducer.layers), self.reducer.num_experts)
        if cache is not None:
            adopt(cache, self.config.num_hidden_layers, self.cache_stamp)
        plan = self._plan(layout, hidden, has_cache=cache is not None, is_first=True)
        tap = None
        for stage, (low, high) in enumerate(self.stages):
            if stage:
                attention = None if tap is None else tap.weights
                boundary = Boundary(self.layers[low], plan.rotary, attention, forced)
                hidden, pooled = self.reducer(stage - 1, hidden, layout, routing, boundary)
                routing.count(pooled)
                # While training always: ZeRO-3 keeps ranks in step by the modules they call, rotary_emb, too.
                if stage == 1 or pooled is not layout or self.training:
                    plan = self._plan(pooled, hidden, has_cache=cache is not None)
                layout = pooled
            tap = AttentionTap(layout) if self.reducer.needs_attention and high < len(self.layers) else None
            hidden = self._stage(low, high, hidden, plan, cache, tap)
            if cache is not None:
                moved = np.array(first.lengths) - np.array(layout.lengths)
                shift = moved if self.reducer.config.position_mode == "renumber" else np.zeros_like(moved)
                real, shift = (to_device(part, hidden.device) for part in (plan.real, shift))
                pyramid_layer(cache, low).remember(real, shift, logical_length=length)
        if cache is not None:
            pyramid_layer(cache, 0).routing = routing
        return PyramidOutput(
            last_hidden_state=self.norm(hidden)[None],  # (1, M, D)
            past_key_values=cache,
            layout=layout,
            routing=routing,
        )

    def _plan(self, layout: Layout, hidden: Tensor, *, has_cache: bool, is_first: bool = False) -> StagePlan:
        """Make what all layers of a stage share, for its packed rows (N, D).

        The first stage's cache keeps the caller's padding, later ones pad on the left.
        """
        assert self.reducer is not None
        positions = layout.device_positions(self.reducer.config.position_mode, hidden.device)  # (N,)
        rotary = self.rotary_emb(hidden[None], position_ids=positions[None])
        packing = Packing.of(layout, hidden.device)
        if not has_cache:
            return StagePlan(packing, rotary, np.zeros((0, 0), bool), None)
        index, real = layout.caller_cells() if is_first else layout.padded_index()
        return StagePlan(packing, rotary, real, None if real.all() else to_device(index, hidden.device))

    def _stage(
        self,
        low: int,
        high: int,
        hidden: Tensor,
        plan: StagePlan,
        cache: Cache | None,
        tap: AttentionTap | None,
    ) -> Tensor:
        """Run the layers from low to below high on packed rows (N, D); keys and values go to the cache.

        The last of them fills the tap.
        """
        for number in range(low, high):
            sink: list[Tensor] | None = None if cache is None else []
            hidden = self.layers[number](
                hidden[None],
                attention_mask=None,
                position_embeddings=plan.rotary,
                packing=plan.packing,
                kv_sink=sink,
                tap=tap if number == high - 1 else None,
            )[0]
            if cache is not None and sink:
                keys, values = (plan.in_cells(states) for states in sink)  # (B, G, P, C)
                cache.update(keys, values, number)
        return hidden

    def _padded(
        self, embeds: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> PyramidOutput:
        """Run decoding steps, continued dialogues and prompts without structure.

        (B, Q, D) attend to a cache of any lengths.
        """
        batch, new = embeds.shape[:2]
        if cache is not None and not cache.layers:  # transformers fills such a one layer by layer
            adopt(cache, self.config.num_hidden_layers, self.cache_stamp)
        attention_mask = full_mask(cache, attention_mask, batch, new, embeds.device)
        if position_ids is None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -new:]  # (B, Q)
        hidden = embeds
        for low, high in self.stages:
            first = cache.layers[low] if cache is not None and cache.layers else None
            mask, positions = attention_mask, position_ids
            if isinstance(first, PyramidLayer):
                mask, positions = first.view(mask, positions)
            causal = create_causal_mask(
                self.config, hidden, mask, cache, layer_idx=low, allow_is_causal_skip=False
            )  # a materialised mask: looking for an empty one would read from the device in every step
            rotary = self.rotary_emb(hidden, position_ids=positions)
            for layer in self.layers[low:high]:
                hidden = layer(
                    hidden, attention_mask=causal, position_embeddings=rotary, past_key_values=cache
                )
        return PyramidOutput(last_hidden_state=self.norm(hidden), past_key_values=cache)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if getattr(self, "reducer", None) is not None:
            assert self.reducer is not None
            self.reducer.init_weights(module)
