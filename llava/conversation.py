"""Conversation templates as data; a dialogue as prompt text, or as segments that know what is supervised."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Literal, NamedTuple

from llava.constants import DEFAULT_IMAGE_TOKEN


class SeparatorStyle(Enum):
    """How turns are joined into one prompt; `_turn_parts` holds the rule of each."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()


class SecondCaptionError(ValueError, TypeError):
    """A plain prompt with a second message; upstream fails there with a `TypeError`."""


class FirstTurnError(ValueError, AssertionError):
    """A Llama-2 prompt that doesn't start with a question; upstream raises `AssertionError`."""


class Segment(NamedTuple):
    """A stretch of a training prompt: the model learns to write it (`is_answer`) or only reads it."""

    text: str
    is_answer: bool


@dataclass
class Conversation:
    """One dialogue in the wording of one template; upstream's name and fields."""

    system: str
    roles: tuple[str, str]
    """Names of the person and of the assistant."""
    messages: list[list[Any]] = field(default_factory=list)
    """[role, message] pairs; a message is text, None for an open turn, or a (text, image, mode) tuple."""
    offset: int = 0
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"

    def append_message(self, role: str, message: Any) -> None:
        """Add one turn; None leaves it open for the model to fill."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """Return an independent conversation; images inside messages are shared."""
        return replace(self, messages=[list(message) for message in self.messages])

    def get_prompt(self) -> str:
        """Return the whole dialogue as the text the model reads.

        Raises:
            SecondCaptionError: a plain conversation with a second message (also a `TypeError`).
            FirstTurnError: a Llama-2 conversation without a first question (also an `AssertionError`).
        """
        messages = _plain_messages(self)
        texts = [
            "".join(_turn_parts(self, role, message, index)) for index, (role, message) in enumerate(messages)
        ]
        return _opening(self) + "".join(texts)


def segments(turns: Sequence[tuple[str, str | None]], template: Conversation) -> list[Segment]:
    """Split the training prompt of (question, answer) turns into what is read and what is learned.

    The texts joined are the training prompt. An answer's segment is everything the model itself writes after
    the open turn: the space that separates it from the role (part of its first token), the answer, and its
    end token. An empty answer stays an open turn, as upstream renders it, and has no such segment; an answer
    of None isn't even opened: the dialogue ends with its question, a segment of its own. The plain format is
    the question, the caption and a newline, which is learned even after an empty caption.
    """
    if template.sep_style is SeparatorStyle.PLAIN:
        pairs = [
            (Segment(read, False), Segment((caption or "") + template.sep, True)) for read, caption in turns
        ]
        return [segment for pair in pairs for segment in pair]
    pieces: list[Segment] = []
    read = _opening(template)
    for index, (question, answer) in enumerate(turns):
        read += "".join(_turn_parts(template, template.roles[0], question, 2 * index))
        if answer is None:
            pieces.append(Segment(read, is_answer=False))
            break
        opened, written = _turn_parts(template, template.roles[1], answer, 2 * index + 1)
        pieces.append(Segment(read + opened, is_answer=False))
        read = ""
        if written:
            pieces.append(Segment(written, is_answer=True))
    return pieces


def with_routing_token(
    conversations: list[dict[str, Any]], *, token: str, placement: Literal["first_turn", "every_turn"]
) -> list[dict[str, Any]]:
    """Copy a sample's messages with the routing token at the end of the human text.

    `first_turn` marks the first human turn that carries `<image>`, `every_turn` every human turn. A sample
    without `<image>` in a human turn is returned unchanged. `<image>` should already stand before the text.
    """
    if placement not in ("first_turn", "every_turn"):
        raise ValueError(f"routing placement must be first_turn or every_turn, got {placement!r}")
    marked = copy.deepcopy(conversations)
    human = [message for message in marked if message["from"] == "human"]
    with_image = [message for message in human if DEFAULT_IMAGE_TOKEN in message["value"]]
    for message in (human if placement == "every_turn" else with_image[:1]) if with_image else []:
        message["value"] += token
    return marked


def _plain_messages(conversation: Conversation) -> list[tuple[str, str | None]]:
    """Return (role, text) pairs; a leading (text, image, mode) tuple gets its `<image>` before the text."""
    messages = [(role, message) for role, message in conversation.messages]
    if messages and isinstance(messages[0][1], tuple):
        role, (text, *_) = messages[0]
        text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" in conversation.version:
            shown = [(conversation.roles[0], f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>")]
            messages[:1] = [*shown, (conversation.roles[1], "Received."), (role, text)]
        else:
            messages[0] = (role, f"{DEFAULT_IMAGE_TOKEN}\n{text}")
    return [(role, message[0] if isinstance(message, tuple) else message) for role, message in messages]


def _opening(conversation: Conversation) -> str:
    """Return the text before the first turn."""
    if conversation.sep_style is SeparatorStyle.PLAIN:
        return conversation.system
    if conversation.sep_style is SeparatorStyle.LLAMA_2:
        return ""  # the system text is written inside the first turn
    return conversation.system + conversation.sep


def _turn_parts(conversation: Conversation, role: str, message: str | None, index: int) -> tuple[str, str]:
    """Return what introduces turn `index` and what its speaker writes, end of turn included."""
    style, is_answer = conversation.sep_style, index % 2 == 1
    if style is SeparatorStyle.LLAMA_2:
        return _llama_2_parts(conversation, role, message, index)
    end = (
        conversation.sep2
        if style in (SeparatorStyle.TWO, SeparatorStyle.PLAIN) and is_answer
        else conversation.sep
    )
    if style is SeparatorStyle.PLAIN:
        if message and end is None:
            raise SecondCaptionError(
                "the plain template has no end for an answer: it holds one caption, not a dialogue"
            )
        return "", f"{message}{end}" if message else ""
    if style is SeparatorStyle.MPT:
        return role, f"{message}{end}" if message else ""
    return f"{role}:", f" {message}{end}" if message else ""


def _llama_2_parts(conversation: Conversation, role: str, message: str | None, index: int) -> tuple[str, str]:
    """Return the parts of a Llama-2 chat turn; the tokenizer writes the first turn's begin token."""
    if index == 0 and (not message or role != conversation.roles[0]):
        raise FirstTurnError(
            f"a {conversation.version} conversation must start with text of {conversation.roles[0]}, "
            f"found {role}: {message!r}"
        )
    if not message:
        return "", ""
    if index % 2 == 1:
        return "", f" {message} {conversation.sep2}"
    if index == 0 and conversation.system:
        message = f"<<SYS>>\n{conversation.system}\n<</SYS>>\n\n{message}"
    return "" if index == 0 else conversation.sep, f"[INST] {message} [/INST]"


_USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HUMAN = _USER.replace("curious user", "curious human").replace("the user's", "the human's")
_VISUAL = (
    "able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_MMTAG = (
    "A chat between a curious user and an artificial intelligence assistant. "
    f"The assistant is {_VISUAL}The visual content will be provided with the following format: "
    "<Image>visual content</Image>."
)
_LLAVA_LLAMA_2 = f"You are a helpful language and vision assistant. You are {_VISUAL}"
_MPT = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers."
)


def _two(system: str, version: str) -> Conversation:
    style = SeparatorStyle.TWO
    return Conversation(system, ("USER", "ASSISTANT"), sep_style=style, sep=" ", sep2="</s>", version=version)


def _single(system: str, version: str) -> Conversation:
    return Conversation(system, ("Human", "Assistant"), version=version)


def _llama_2(system: str, sep: str) -> Conversation:
    style = SeparatorStyle.LLAMA_2
    return Conversation(
        system, ("USER", "ASSISTANT"), sep_style=style, sep=sep, sep2="</s>", version="llama_v2"
    )


def _chatml(system: str) -> Conversation:
    roles = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    return Conversation(system, roles, sep_style=SeparatorStyle.MPT, sep="<|im_end|>", version="mpt")


_v1 = _two(_USER, "v1")
_plain = Conversation("", ("", ""), sep_style=SeparatorStyle.PLAIN, sep="\n")
_direct = _chatml("<|im_start|>system\nAnswer the questions.")

default_conversation = _v1
conv_templates: dict[str, Conversation] = {
    "v1": _v1,
    "vicuna_v1": _v1,
    "llava_v1": _two(_HUMAN, "v1"),
    "v1_mmtag": _two(_MMTAG, "v1_mmtag"),
    "plain": _plain,
    "v0_plain": _plain,
    "llava_v0": _single(_HUMAN, "Unknown"),
    "v0_mmtag": _single(_MMTAG, "v0_mmtag"),
    "llava_llama_2": _llama_2(_LLAVA_LLAMA_2, "<s>"),
    "mistral_instruct": _llama_2("", ""),
    "mpt": _chatml(_MPT),
    "chatml_direct": _direct,
    "mistral_direct": _direct,
}
