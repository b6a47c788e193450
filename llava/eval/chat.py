"""A dialogue with a checkpoint about images, in the wording it was trained with.

Shapes: L prompt tokens, S side of the tower's square input.
"""

import http.client
import io
import logging
import math
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, conv_templates, with_routing_token
from llava.eval.inputs import Placement
from llava.eval.session import DEFAULT_TEMPLATE, choose_device, choose_dtype, trained_template
from llava.mm_utils import get_model_name_from_path, load_image, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.reduction import from_dict, routing_prompt

logger = logging.getLogger(__name__)

URL_TIMEOUT = 30
"""Seconds that a server has to send an image."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are written; upstream's defaults."""

    temperature: float = 0.2
    """0 takes the likeliest token, anything above samples."""
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 512
    budget: float | None = None
    """Mean share of the dense FLOPs, for a calibrated checkpoint (docs/budgets.md)."""
    counting: str = "visual"
    """What the budget counts."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or above, got {self.temperature}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p is a share of the probability, from 0 to 1, got {self.top_p}")
        for name in ("num_beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")

    def arguments(self) -> dict[str, Any]:
        """Return the keywords of `generate`; sampling fields only where they mean something."""
        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        given = {name: value for name, value in sampling.items() if value is not None}
        chosen = given if self.temperature > 0 else {"do_sample": False}
        budget = {} if self.budget is None else {"budget": self.budget, "counting": self.counting}
        return {**chosen, **budget, "num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}


@dataclass(frozen=True, kw_only=True)
class Assistant:
    """A loaded checkpoint and the way it wants to be asked."""

    model: Any
    tokenizer: Any
    image_processor: Any
    """None for a model without a vision tower."""
    template: Conversation
    routing: tuple[str, Placement] | None
    """Routing token and its placement, for a checkpoint whose router reads one."""

    def image_mark(self) -> str:
        """Return what stands for an image in a question, wrapped as in training."""
        if "mmtag" in self.template.version:
            return f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>"
        if self.model.config.mm_use_im_start_end:
            return f"{DEFAULT_IM_START_TOKEN}{DEFAULT_IMAGE_TOKEN}{DEFAULT_IM_END_TOKEN}"
        return DEFAULT_IMAGE_TOKEN

    def prompt(self, turns: Sequence[tuple[str, str | None]]) -> str:
        """Return the text of (question, answer) turns; an answer of None is left open for the model.

        Questions hold their image marks already; the routing token is added here.
        """
        messages = [
            {"from": speaker, "value": text}
            for question, answer in turns
            for speaker, text in (("human", question), ("gpt", answer))
        ]
        if self.routing is not None:
            token, placement = self.routing
            messages = with_routing_token(messages, token=token, placement=placement)
        conversation = replace(self.template, messages=[])
        for message in messages:
            conversation.append_message(conversation.roles[message["from"] == "gpt"], message["value"])
        return conversation.get_prompt()

    def answer(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        decoding: Decoding,
        *,
        first_prompt: str | None = None,
        streamer: Any = None,
    ) -> str:
        """Continue a prompt until its template's end of turn; returns the new text without that end.

        Args:
            prompt: the whole dialogue.
            images: as many as it has `<image>`.
            decoding: how the answer is written.
            first_prompt: the dialogue up to its first answer, whose end the routers read as in training; None
                is the prompt itself.
            streamer: as `generate` takes it.

        Raises:
            ValueError: the prompt has more or fewer `<image>` than there are images.
        """
        ids = tokenizer_image_token(prompt, self.tokenizer, return_tensors="pt")[None]  # (1, L)
        ids = ids.to(self.model.device)
        first = (
            ids[0].tolist() if first_prompt is None else tokenizer_image_token(first_prompt, self.tokenizer)
        )
        end, stopping = self._stopping()
        output = self.model.generate(
            ids,
            images=self._pixels(prompt, images),
            image_sizes=[image.size for image in images] or None,
            attention_mask=torch.ones_like(ids),
            first_turn_lengths=[_common_prefix(first, ids[0].tolist())],
            pad_token_id=self.tokenizer.pad_token_id,
            streamer=streamer,
            use_cache=True,
            **stopping,
            **decoding.arguments(),
        )
        text: str = self.tokenizer.decode(output[0], skip_special_tokens=True)
        return text.strip().removesuffix(end.strip()).strip() if end.strip() else text.strip()

    def _stopping(self) -> tuple[str, dict[str, Any]]:
        """Return the template's end of an answer, and how `generate` recognises it."""
        style = self.template.sep_style
        end = (
            self.template.sep2 if style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2) else self.template.sep
        )
        if end is None or end == self.tokenizer.eos_token:
            return "", {}
        known = self.tokenizer.get_added_vocab().get(end)  # a token of its own, never part of a text
        if known is not None:
            return end, {"eos_token_id": [self.tokenizer.eos_token_id, known]}
        return end, {"stop_strings": [end], "tokenizer": self.tokenizer}

    def _pixels(self, prompt: str, images: Sequence[Image.Image]) -> Tensor | list[Tensor] | None:
        """Return pixels (images, 3, S, S), a list where crops differ in number, or None without images."""
        places = prompt.count(DEFAULT_IMAGE_TOKEN)
        if places != len(images):
            raise ValueError(
                f"the prompt has {places} places for images, but there are {len(images)} images: "
                "give one `<image>` for each"
            )
        if not images:
            return None
        if self.image_processor is None:
            raise ValueError("this checkpoint has no vision tower, so it can't be asked about an image")
        pixels = process_images(list(images), self.image_processor, self.model.config)
        where = {"device": self.model.device, "dtype": self.model.dtype}
        return pixels.to(**where) if isinstance(pixels, Tensor) else [item.to(**where) for item in pixels]


@dataclass(kw_only=True)
class Dialogue:
    """The turns of one conversation about the images it began with."""

    assistant: Assistant
    images: Sequence[Image.Image] = ()
    turns: list[tuple[str, str | None]] = field(default_factory=list)

    def ask(self, question: str, decoding: Decoding, *, streamer: Any = None) -> str:
        """Answer a question and remember both; the images stand before the first question."""
        if not self.turns:
            question = f"{self.assistant.image_mark()}\n" * len(self.images) + question
        turns = [*self.turns, (question, None)]
        answer = self.assistant.answer(
            self.assistant.prompt(turns),
            self.images,
            decoding,
            first_prompt=self.assistant.prompt([(turns[0][0], None)]),
            streamer=streamer,
        )
        self.turns.append((question, answer))
        return answer


def _common_prefix(first: Sequence[int], whole: Sequence[int]) -> int:
    """Count the ids with which both begin; a tokenizer may join the last one to what follows."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, whole, strict=False)))


def load_assistant(
    model_path: str,
    model_base: str | None = None,
    *,
    conv_mode: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Assistant:
    """Load a checkpoint to talk to.

    Args:
        model_path: checkpoint directory or hub id.
        model_base: language model of a projector-only or LoRA directory.
        conv_mode: a template's name; None takes the one the checkpoint was trained with.
        device: auto (GPU where there is one), cuda, cuda:N or cpu.
        dtype: auto (float16 on a GPU, float32 on a CPU) or a torch dtype's name.
        options: `load_8bit`, `load_4bit`, `reduction`, as `load_pretrained_model` takes them.
    """
    if conv_mode is not None and conv_mode not in conv_templates:
        raise ValueError(f"--conv-mode {conv_mode} is unknown; there are {', '.join(conv_templates)}")
    place = choose_device(device, 0)
    tokenizer, model, image_processor, _ = load_pretrained_model(
        model_path,
        model_base,
        get_model_name_from_path(model_path),
        device=str(place),
        torch_dtype=choose_dtype(dtype, place),
        **options,
    )
    reduction = model.config.reduction
    routing = routing_prompt(from_dict(reduction)) if reduction else None
    return Assistant(
        model=model.eval(),
        tokenizer=tokenizer,
        image_processor=image_processor,
        template=conv_templates[choose_template(trained_template(model.config, model_path), conv_mode)],
        routing=cast("tuple[str, Placement] | None", routing),
    )


def choose_template(trained: str | None, asked: str | None) -> str:
    """Return the template to use: the one asked for, the trained one, or LLaVA-1.5's, with a notice."""
    if asked is not None:
        if trained is not None and conv_templates[asked] != conv_templates[trained]:
            logger.warning(
                "the checkpoint was trained with template %s; --conv-mode asks for %s, which is used",
                trained,
                asked,
            )
        return asked
    if trained is None:
        logger.warning(
            "config.json names no conversation template; %s is used, with which LLaVA-1.5 was trained "
            "(--conv-mode chooses another)",
            DEFAULT_TEMPLATE,
        )
    return trained or DEFAULT_TEMPLATE


def read_image(source: str) -> Image.Image:
    """Open an image file or an http(s) address as RGB."""
    if not source.startswith(("http://", "https://")):
        return load_image(source)
    try:
        with urllib.request.urlopen(source, timeout=URL_TIMEOUT) as response:
            content = response.read()
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (
        OSError,  # urllib's errors among them
        http.client.HTTPException,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"image {source} can't be fetched and read: {error}") from error
