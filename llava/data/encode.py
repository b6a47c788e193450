r"""One conversation to token ids and labels. Shapes: L tokens of one sample, an image counting as one.

What is learned is decided on the prompt's text, in segments; each token then takes the side of the text it
ends in. Nothing is tokenised twice, so no count can disagree with another.

    prompt   ... USER: <image>\nWhat? ASSISTANT: A cat.</s>
    learned                                    ^^^^^^^^^^^   (the space belongs to the token of "A")
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.conversation import Conversation, Segment, SeparatorStyle, conv_templates, segments
from llava.data.mpt_labels import original_mpt_labels
from llava.data.records import check_turns, effective_messages
from llava.mm_utils import tokenizer_image_token, without_begin_token


class Encoded(NamedTuple):
    """Ids and labels of one conversation."""

    input_ids: Tensor
    """(L,) int64, IMAGE_TOKEN_INDEX where the image goes."""
    labels: Tensor
    """(L,) int64, a copy of the id where an answer is and IGNORE_INDEX elsewhere."""


def encode_conversation(
    conversations: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    version: str,
    has_image: bool,
    mm_use_im_start_end: bool = False,
) -> Encoded:
    """Encode messages in the wording of a template, as the original's preprocessing does.

    With `has_image`, every message's `<image>` moves to its front and becomes IMAGE_TOKEN_INDEX; without, it
    is ordinary text, and the ids are cut at the tokenizer's `model_max_length`. (The original cuts samples
    with an image later, in the collator.) Labels copy the ids, also where an answer holds an image.

    Raises:
        ValueError: an unknown version, turns out of order, or a conversation without an answer, or with an
            open last question within `model_max_length`, for which the original has no labels either.
    """
    template = template_of(version)
    messages = list(conversations)
    pieces = _segments(messages, template, has_image=has_image, mm_use_im_start_end=mm_use_im_start_end)
    encoded, is_original = _encode(pieces, tokenizer, template, has_image=has_image)
    if not is_original:
        is_open = len(effective_messages(messages)) % 2 == 1
        before = _encode_segments(pieces[:-1], tokenizer, has_image=has_image) if is_open else None
        if before is not None and len(before.input_ids) < tokenizer.model_max_length:
            check_turns(messages)  # behind that length, the open question is cut off like other text
        _require_answers(pieces)
    if has_image or template.sep_style is SeparatorStyle.PLAIN:
        return encoded
    kept = min(len(encoded.input_ids), tokenizer.model_max_length)
    return Encoded(encoded.input_ids[:kept], encoded.labels[:kept])


def encode_uncut(
    conversations: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    version: str,
    has_image: bool,
    mm_use_im_start_end: bool = False,
) -> Encoded:
    """Encode for training: whatever the length, only what can be learned from, and no image as a label.

    The model drops labels of images in any case, but what divides the loss is counted before.
    """
    template = template_of(version)
    pieces = training_segments(
        conversations, template, has_image=has_image, mm_use_im_start_end=mm_use_im_start_end
    )
    (ids, labels), _ = _encode(pieces, tokenizer, template, has_image=has_image)
    return Encoded(ids, labels.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX))


def _encode(
    pieces: list[Segment], tokenizer: PreTrainedTokenizerBase, template: Conversation, *, has_image: bool
) -> tuple[Encoded, bool]:
    """Return ids and labels, and whether the labels are the original's own count for a ChatML prompt."""
    has_image = has_image or template.sep_style is SeparatorStyle.PLAIN  # that format is always about one
    encoded = _encode_segments(pieces, tokenizer, has_image=has_image)
    if template.version != "mpt":
        return encoded, False
    prompt = "".join(piece.text for piece in pieces)
    ids: list[int] = encoded.input_ids.tolist()

    def count(text: str) -> int:
        return len(tokenizer_image_token(text, tokenizer) if has_image else tokenizer(text).input_ids)

    kept = len(ids) if has_image else min(len(ids), tokenizer.model_max_length)
    labels = original_mpt_labels(prompt, ids[:kept], tokenizer, template, count)
    if labels is None:
        return encoded, False
    return Encoded(encoded.input_ids, torch.cat([torch.tensor(labels), encoded.labels[kept:]])), True


def template_of(version: str) -> Conversation:
    """Return the template of a version name."""
    if version not in conv_templates:
        raise ValueError(
            f"unknown conversation version {version!r}: choose one of {', '.join(conv_templates)}"
        )
    return conv_templates[version]


def training_segments(
    conversations: Sequence[dict[str, Any]],
    template: Conversation,
    *,
    has_image: bool,
    mm_use_im_start_end: bool = False,
) -> list[Segment]:
    """Return the training prompt in segments, or say why there is nothing to learn from the conversation."""
    messages = list(conversations)
    check_turns(messages)
    pieces = _segments(messages, template, has_image=has_image, mm_use_im_start_end=mm_use_im_start_end)
    _require_answers(pieces)
    return pieces


def _segments(
    messages: list[dict[str, Any]], template: Conversation, *, has_image: bool, mm_use_im_start_end: bool
) -> list[Segment]:
    """Return the prompt of messages in order in segments; the last question may be open."""
    check_turns(messages, may_end_open=True)
    is_plain = template.sep_style is SeparatorStyle.PLAIN
    texts = [message["value"] for message in (messages if is_plain else effective_messages(messages))]
    if has_image:
        texts = [_tagged(image_to_front(text), template, mm_use_im_start_end) for text in texts]
    turns = [_caption_turn(texts)] if is_plain else list(zip_longest(texts[::2], texts[1::2]))
    return segments(turns, template)


def _require_answers(pieces: list[Segment]) -> None:
    if not any(piece.is_answer for piece in pieces):
        raise ValueError("every gpt message is empty, expected at least one answer to learn from")


def image_to_front(text: str) -> str:
    r"""Put one `<image>` line before a message that has any: "What <image> is?" -> "<image>\nWhat  is?"."""
    if DEFAULT_IMAGE_TOKEN not in text:
        return text
    return f"{DEFAULT_IMAGE_TOKEN}\n{text.replace(DEFAULT_IMAGE_TOKEN, '').strip()}".strip()


def _tagged(text: str, template: Conversation, use_start_end: bool) -> str:
    """Wrap `<image>` in the tags that the template and the model's tokens ask for."""
    image = DEFAULT_IMAGE_TOKEN
    if use_start_end:
        image = f"{DEFAULT_IM_START_TOKEN}{image}{DEFAULT_IM_END_TOKEN}"
    if "mmtag" in template.version:
        image = f"<Image>{image}</Image>"
    return text.replace(DEFAULT_IMAGE_TOKEN, image)


def _caption_turn(texts: list[str]) -> tuple[str, str]:
    """Return the one turn of the plain format, whose question is the image alone."""
    if len(texts) != 2 or DEFAULT_IMAGE_TOKEN not in texts[0]:
        raise ValueError(
            f"the plain format needs one human message with `<image>` and one caption, found {len(texts)} "
            f"messages starting with {texts[0]!r:.60}; use another --version for dialogues"
        )
    return DEFAULT_IMAGE_TOKEN, texts[1]


def _encode_segments(
    pieces: list[Segment], tokenizer: PreTrainedTokenizerBase, *, has_image: bool
) -> Encoded:
    """Tokenise the text between images; label the tokens whose last character lies in an answer."""
    prompt = "".join(piece.text for piece in pieces)
    learned = [piece.is_answer for piece in pieces for _ in piece.text]
    ids: list[int] = []
    labels: list[int] = []
    start = 0
    for index, text in enumerate(prompt.split(DEFAULT_IMAGE_TOKEN) if has_image else [prompt]):
        encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
        piece: list[int] = encoding["input_ids"]
        if index > 0:
            ids.append(IMAGE_TOKEN_INDEX)
            labels.append(IMAGE_TOKEN_INDEX if learned[start - 1] else IGNORE_INDEX)
            piece = without_begin_token(piece, tokenizer)
        ids += piece
        spans = encoding["offset_mapping"][-len(piece) :] if piece else []
        for token, (first, end) in zip(piece, spans, strict=True):
            last = start + max(first, end - 1)
            labels.append(token if learned[last] else IGNORE_INDEX)
        start += len(text) + len(DEFAULT_IMAGE_TOKEN)
    return Encoded(torch.tensor(ids, dtype=torch.long), torch.tensor(labels, dtype=torch.long))
