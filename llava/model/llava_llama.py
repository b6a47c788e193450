"""LLaVA on Llama: encode images, splice them into the prompt, run the (pyramid) decoder, predict.

Shapes: B samples, S ids with sentinels, T merged length, M rows of the last stage, K images, D model width, V
vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, LlamaPreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from llava.model.budgets import Budgets
from llava.model.config import LlavaConfig
from llava.model.generation import generation_arguments, prompt_counts
from llava.model.inputs import Images, ImageSizes, images_to_merge, is_step
from llava.model.language_loss import callers_states
from llava.model.llava_model import LlavaLlamaModel
from llava.model.multimodal import Prompts, Spliced, splice_images
from llava.model.objective import batch_loss
from llava.model.reduction import (
    Consequences,
    DynamicPyramid,
    PacksSamples,
    PyramidOutput,
    Routing,
    routing_of,
)
from llava.model.report import SampleReport, report
from llava.model.vision_tower import CLIPVisionTower, legacy_name


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


class LlavaLlamaForCausalLM(PacksSamples, LlamaForCausalLM):
    """LLaVA-1.5; the steps of `forward`: 1. encode_images 2. splice_images 3. decode 4. loss."""

    config_class = LlavaConfig
    config: LlavaConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    budgets: Budgets | None = None
    """What `generate(budget=...)` looks its shift up in; `load_pretrained_model` reads it."""

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
        """Give the vision tower; ValueError if this is a text-only model."""
        return self.model.get_vision_tower()

    @property
    def router_lr_scale(self) -> float:
        """Learning rate of the parameters under `reducer.` relative to the model's."""
        reducer = self.model.reducer
        return reducer.config.router_lr_scale if isinstance(reducer, DynamicPyramid) else 1.0

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode pixels (C, 3, h, w) to visual tokens (C, N, D); ValueError if a selector leaves fewer."""
        return self.model.encode_images(images)

    def splice(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        images: Images,
        image_sizes: ImageSizes | None,
        padding_side: str,
    ) -> Spliced:
        """Encode the images and put their tokens in place of the sentinels of (B, S) ids."""
        prompts = Prompts.read(input_ids, attention_mask, labels)
        shown = prompts.shown_images(len(images))
        return splice_images(
            prompts,
            input_ids,
            self.model.visual_tokens(images, image_sizes, shown),
            self.get_input_embeddings(),
            router_id=self.config.router_token_id,
            max_length=self.config.tokenizer_model_max_length,
            padding_side=padding_side,
        )

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        labels: Tensor | None,
        images: Images | None,
        image_sizes: ImageSizes | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Cache | None, Tensor | None, Tensor | None]:
        """Merge images as upstream's method of this name does; for code that calls the decoder itself.

        Returns:
            input_ids (None once merged), position_ids, attention_mask, past_key_values, inputs_embeds of
            (B, T, D), labels of (B, T). What was None stays None, except for the mask where rows had to be
            padded.
        """
        if images is None or self.config.mm_vision_tower is None or is_step(input_ids):
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        merged = self.splice(
            input_ids, attention_mask, labels, images, image_sizes, self.config.tokenizer_padding_side
        )
        mask = merged.attention_mask
        if attention_mask is not None:
            mask = mask.to(attention_mask.dtype)
        elif bool(mask.all()):
            mask = None
        truth = None if merged.labels is None else torch.from_numpy(merged.labels).to(input_ids.device)
        positions = None if position_ids is None else merged.position_ids
        return None, positions, mask, past_key_values, merged.inputs_embeds, truth

    @can_return_tuple
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
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        mm_token_type_ids: Tensor | None = None,
        visual_grids: Tensor | None = None,
        routes: Tensor | None = None,
        router_shift: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        routed_samples: Tensor | None = None,
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
            images: pixels as `LlavaLlamaModel.visual_tokens` takes them; a row without an image brings a
                dummy. A decoding step may carry them along, they aren't merged again.
            image_sizes: width and height of every image, for merging the tiles of anyres.
            mm_token_type_ids: (B, T) structure of merged embeddings.
            visual_grids: (B, I, 2) grids of their visual spans.
            routes: (B, S) expert indices to force, negative where the router decides.
            router_shift: (B,) what moves every sample's choices towards cheaper experts (dpn/budget.py).
            num_items_in_batch: supervised tokens of the whole step; the loss is divided by them instead of
                the batch's own.
            routed_samples: (2,) samples with images in this batch and in the whole step, which weigh the
                auxiliary terms; unset, supervised tokens do.
            kwargs: passed to the decoder; return_dict=False turns the output into a tuple of what isn't None.
        """
        truth = None if labels is None else labels.cpu().numpy()
        if inputs_embeds is None:
            images = images_to_merge(input_ids, images, past_key_values)
        if inputs_embeds is None and images is not None:
            assert input_ids is not None
            spliced = self.splice(
                input_ids, attention_mask, labels, images, image_sizes, self.config.tokenizer_padding_side
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
            router_shift=router_shift,
            return_dict=True,
            **kwargs,
        )
        loss, metrics, consequences = None, None, None
        if truth is not None:
            judged = batch_loss(outputs, truth, self.lm_head, self.model, num_items_in_batch, routed_samples)
            loss, metrics, consequences = judged
        predicts = not self.training or labels is None
        return LlavaOutput(  # at once: a tuple of the output has the fields in the order they were set
            loss=loss,
            logits=self.lm_head(callers_states(outputs, logits_to_keep)) if predicts else None,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routing=outputs.routing if isinstance(outputs, PyramidOutput) else None,
            metrics=metrics,
            consequences=consequences,
        )

    def observe_step(self, output: LlavaOutput) -> None:
        """Let the policy objective move its running state.

        Called once per training micro step on every rank.
        """
        reducer = self.model.reducer
        policy = reducer.policy if isinstance(reducer, DynamicPyramid) else None
        if policy is not None and output.consequences is not None:
            policy.observe(output.consequences)

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] - LLaVA's signature
        self,
        inputs: Tensor | None = None,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue prompts (B, S) with -200 at images; returns the new ids only, (B, new).

        Merged prompts are padded on the left, whatever side `inputs` are padded on, so that a batch continues
        every prompt at its own end.

        Beside transformers' arguments, `routes` forces routes per prompt and DPE, by name ([["1x1", "2x2",
        "1x2"], ...]) or index (B, S); `budget=0.4` (with `counting="visual"` or "full") asks for a mean share
        of the dense FLOPs (docs/budgets.md). Both hold for this call only. For a dialogue of several turns,
        `first_turn_lengths` (B,) says how many ids the first prompt has, so that routes stay those of it.

        Raises:
            ValueError: arguments that can't work here, routes or a budget that the model can't follow.
        """
        arguments, _ = generation_arguments(self, inputs, images, image_sizes, kwargs)
        return super().generate(**arguments)  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def generate_with_report(
        self,
        inputs: Tensor,
        *,
        images: Images | None = None,
        image_sizes: ImageSizes | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, list[SampleReport]]:
        """Generate, and say for every prompt which route it took and how many tokens every layer saw."""
        arguments, spliced = generation_arguments(self, inputs, images, image_sizes, kwargs)
        arguments |= {"return_dict_in_generate": True, "use_cache": True}
        output = super().generate(**arguments)  # pyright: ignore[reportAttributeAccessIssue]
        tokens, visual = prompt_counts(inputs, arguments["attention_mask"], spliced)
        return output.sequences, report(
            routing_of(output.past_key_values),
            tokens=tokens,
            visual_tokens=visual,
            spared=None if spliced is None else spliced.spared,
            num_layers=self.config.num_hidden_layers,
            visual_grids=None if spliced is None else spliced.grids,
        )

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save under LLaVA's names, without the frozen tower, which is read from `mm_vision_tower` again."""
        state = kwargs.pop("state_dict", None)
        state = self.state_dict() if state is None else state
        if not self.config.unfreeze_mm_vision_tower:
            state = {name: value for name, value in state.items() if "vision_tower." not in name}
        state = {legacy_name(name): value for name, value in state.items()}
        kwargs["save_original_format"] = False  # "original" would be whatever names it was loaded from
        super().save_pretrained(save_directory, *args, state_dict=state, **kwargs)


AutoModelForCausalLM.register(LlavaConfig, LlavaLlamaForCausalLM)
