"""LLaVA on Llama: encode images, splice them into the prompt, run the (pyramid) decoder, predict.

Shapes: B samples, S ids with sentinels, T merged length, M rows of the last stage, K images, D model width, V
vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, LlamaPreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.model.config import LlavaConfig
from llava.model.generation import generation_arguments, prompt_counts
from llava.model.multimodal import Spliced, VisualTokens, splice_images
from llava.model.objective import batch_loss
from llava.model.projector import build_projector
from llava.model.reduction import (
    Consequences,
    PyramidLlamaModel,
    PyramidOutput,
    Routing,
    routing_of,
)
from llava.model.report import SampleReport, report
from llava.model.vision_tower import CLIPVisionTower


@dataclass
class LlavaOutput(CausalLMOutputWithPast):
    """Output of a forward pass.

    While training on labels, `logits` is None: only supervised rows are predicted.
    """

    routing: Routing | None = None
    """What the DPEs decided: choices, probabilities, token counts."""
    metrics: dict[str, Tensor] | None = None
    """Detached scalars for the log, where there are labels."""
    consequences: Consequences | None = None
    """What the policy objective learns its running state from."""


class LlavaLlamaModel(PyramidLlamaModel):
    """Decoder, projector and vision tower under LLaVA's state-dict names."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        if config.mm_vision_tower is not None:
            self.vision_tower = CLIPVisionTower(config)
            self.mm_projector = build_projector(
                config.mm_projector_type, config.mm_hidden_size, config.hidden_size
            )
        self.post_init()


class LlavaLlamaForCausalLM(LlamaForCausalLM):
    """LLaVA-1.5; the steps of `forward`: 1. encode_images 2. splice_images 3. decode 4. loss."""

    config_class = LlavaConfig
    config: LlavaConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: LlavaConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)  # not LlamaForCausalLM's: it would build a second decoder
        self.model = LlavaLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self) -> LlavaLlamaModel:
        """Give the decoder with its projector and tower."""
        return self.model

    def get_vision_tower(self) -> CLIPVisionTower:
        """Give the vision tower.

        Raises:
            ValueError: this is a text-only model.
        """
        if self.config.mm_vision_tower is None:
            raise ValueError("this model has no vision tower: its config.json names no mm_vision_tower")
        return self.model.vision_tower

    @property
    def router_lr_scale(self) -> float:
        """Learning rate of the parameters under `reducer.` relative to the model's."""
        return 1.0 if self.model.reducer is None else self.model.reducer.config.router_lr_scale

    def encode_images(self, images: Tensor | Sequence[Tensor]) -> VisualTokens:
        """Encode (K, 3, h, w), (K, C, 3, h, w), or a list of (3, h, w) or (C, 3, h, w).

        All crops go through tower and projector in one pass.

        Raises:
            ValueError: a way of merging crops that isn't supported.
        """
        crops = [image[None] if image.ndim == 3 else image for image in images]  # each (C, 3, h, w)
        if self.config.mm_patch_merge_type != "flat" and any(len(image) > 1 for image in crops):
            raise ValueError(
                f"mm_patch_merge_type={self.config.mm_patch_merge_type!r} with several crops per image "
                f"isn't supported "
                f"yet; set image_aspect_ratio to pad, or mm_patch_merge_type to flat"
            )
        tower = self.get_vision_tower()
        weight = next(self.model.mm_projector.parameters(), None)
        features = tower(torch.cat(crops))  # (C, N, F)
        tokens = self.model.mm_projector(
            features if weight is None else features.to(weight.dtype)
        )  # (C, N, D)
        return VisualTokens(tokens, tuple(len(image) for image in crops), tower.grid)

    def splice(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        images: Tensor | Sequence[Tensor],
        padding_side: str,
    ) -> Spliced:
        """Encode the images and put their tokens in place of the sentinels of (B, S) ids."""
        return splice_images(
            input_ids,
            attention_mask,
            labels,
            self.encode_images(images),
            self.get_input_embeddings(),
            router_id=self.config.router_token_id,
            max_length=self.config.tokenizer_model_max_length,
            padding_side=padding_side,
        )

    def forward(  # noqa: PLR0913, PLR0917 # pyright: ignore[reportIncompatibleMethodOverride] - LLaVA's
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Any = None,
        mm_token_type_ids: Tensor | None = None,
        visual_grids: Tensor | None = None,
        routes: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> LlavaOutput:
        """Predict the next tokens; with labels, also give the loss.

        The loss is L_a + lambda L_r (Eq. 7) and, in training, the policy's term.

        Args:
            input_ids: (B, S) with -200 at images, or give inputs_embeds.
            attention_mask: (B, S), zero at padding.
            position_ids: (B, T) for inputs_embeds; merged sequences number themselves.
            past_key_values: cache to continue.
            inputs_embeds: (B, T, D), already merged.
            labels: (B, S), or (B, T) for inputs_embeds; -100 is ignored.
            use_cache: whether to return a cache.
            logits_to_keep: number of last positions to predict, 0 for all.
            images: pixels as `encode_images` takes them; a row without an image brings a dummy.
            image_sizes: accepted for compatibility; merging crops doesn't need it yet.
            mm_token_type_ids: (B, T) structure of merged embeddings.
            visual_grids: (B, I, 2) grids of their visual spans.
            routes: (B, S) expert indices to force, negative where the router decides.
            num_items_in_batch: supervised tokens of the whole step; the loss is divided by them instead of
                the batch's own.
            kwargs: passed to the decoder.
        """
        truth = None if labels is None else labels.cpu().numpy()
        if inputs_embeds is None and images is not None:
            if input_ids is None:
                raise ValueError("images go with input_ids that hold -200 where they belong")
            if past_key_values is not None and past_key_values.get_seq_length():
                raise ValueError(
                    "images can't be merged behind a filled cache; give the whole dialogue's ids without "
                    "one, or "
                    "leave images out"
                )
            spliced = self.splice(
                input_ids, attention_mask, labels, images, self.config.tokenizer_padding_side
            )
            inputs_embeds, input_ids, truth = spliced.inputs_embeds, None, spliced.labels
            attention_mask, position_ids = spliced.attention_mask, spliced.position_ids
            mm_token_type_ids, visual_grids = spliced.mm_token_type_ids, spliced.visual_grids
        elif self.model.reducer is not None and self.training and mm_token_type_ids is None:
            given = inputs_embeds if input_ids is None else input_ids
            assert given is not None
            mm_token_type_ids = torch.zeros(given.shape[:2], dtype=torch.long)  # text only: routers run, too
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_token_type_ids=mm_token_type_ids,
            visual_grids=visual_grids,
            routes=routes,
            **kwargs,
        )
        result = LlavaOutput(
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routing=outputs.routing if isinstance(outputs, PyramidOutput) else None,
        )
        if truth is not None:
            judged = batch_loss(outputs, truth, self.lm_head, self.model, num_items_in_batch)
            result.loss, result.metrics, result.consequences = judged
        if not self.training or labels is None:
            result.logits = self._logits(outputs, logits_to_keep)
        return result

    def _logits(self, outputs: Any, keep: int) -> Tensor:
        """Predict (B, T or keep, V).

        Where tokens were pooled away, the row that they went into speaks for them.
        """
        hidden = outputs.last_hidden_state
        if isinstance(outputs, PyramidOutput) and outputs.layout is not None:
            if keep == 1:
                rows = torch.from_numpy(outputs.layout.starts[1:] - 1).to(hidden.device)
                return self.lm_head(hidden[0, rows])[:, None]  # (B, 1, V)
            cells = torch.from_numpy(outputs.layout.caller_cells()[0]).to(hidden.device)
            hidden = hidden[0, cells]  # (B, T, D)
        return self.lm_head(hidden[:, -keep:] if keep else hidden)

    def observe_step(self, output: LlavaOutput) -> None:
        """Let the policy objective move its running state.

        Called once per training micro step on every rank.
        """
        if (
            output.consequences is not None
            and self.model.reducer is not None
            and self.model.reducer.policy is not None
        ):
            self.model.reducer.policy.observe(output.consequences)

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] - LLaVA's signature
        self,
        inputs: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Continue prompts (B, S) with -200 at images; returns the new ids only, (B, new).

        Merged prompts are padded on the left, whatever side `inputs` are padded on, so that a batch continues
        every prompt at its own end.

        Raises:
            ValueError: inputs_embeds or prefill_chunk_size, which can't work here.
        """
        arguments, _ = generation_arguments(self, inputs, images, kwargs)
        return super().generate(**arguments)  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def generate_with_report(
        self,
        inputs: Tensor,
        *,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, list[SampleReport]]:
        """Generate, and say for every prompt which route it took and how many tokens every layer saw."""
        arguments, spliced = generation_arguments(self, inputs, images, kwargs)
        arguments |= {"return_dict_in_generate": True, "use_cache": True}
        output = super().generate(**arguments)  # pyright: ignore[reportAttributeAccessIssue]
        tokens, visual = prompt_counts(inputs, arguments["attention_mask"], spliced)
        return output.sequences, report(
            routing_of(output.past_key_values),
            tokens=tokens,
            visual_tokens=visual,
            num_layers=self.config.num_hidden_layers,
        )

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save without the frozen vision tower, whose weights are read from `mm_vision_tower` again."""
        state = kwargs.pop("state_dict", None)
        state = self.state_dict() if state is None else state
        if not self.config.unfreeze_mm_vision_tower:
            state = {name: value for name, value in state.items() if "vision_tower." not in name}
        super().save_pretrained(save_directory, *args, state_dict=state, **kwargs)


AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
