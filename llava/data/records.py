r"""Read LLaVA's training JSON and refuse what can't be trained on, before anything else is loaded.

A sample of the file:

    {"id": "000000033471", "image": "coco/train2017/000000033471.jpg",
     "conversations": [{"from": "human", "value": "<image>\nWhat colour is the bus?"},
                       {"from": "gpt", "value": "White and red."}]}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN

_SPEAKERS = ("human", "gpt")
_SHOWN = 10
"""How many bad samples an error lists."""


@dataclass(frozen=True)
class Record:
    """One checked sample."""

    id: str
    """The sample's id; `#5` for the sixth sample when the file gives it none."""
    image: str | None
    """Image path relative to the image folder; None for a text-only sample."""
    conversations: tuple[dict[str, Any], ...]
    """Messages {"from": "human" or "gpt", "value": text}, taking turns; they may start with a gpt message."""
    source: str
    """The file the sample comes from."""


def read_records(data_path: str | Path) -> list[Record]:
    """Read and check a whole file; one error lists its bad samples by id."""
    records, complaints = scan_records(data_path)
    problems = [f"sample {name}: {complaint}" for name, complaint in complaints]
    raise_problems(problems, str(data_path), len(records) + len(problems))
    return records


def scan_records(data_path: str | Path) -> tuple[list[Record], list[tuple[str, str]]]:
    """Read a whole file: its good samples, and (id, complaint) of each bad one.

    Raises:
        ValueError: the file is missing, is not JSON, or is not a list with samples.
    """
    samples = _read_json(Path(data_path))
    if not isinstance(samples, list):
        raise ValueError(
            f"{data_path} holds a JSON {type(samples).__name__}, but training data is a list of samples "
            '[{"id": ..., "image": ..., "conversations": [...]}, ...]: put the sample(s) into a list'
        )
    if not samples:
        raise ValueError(f"{data_path} is an empty list: training needs at least one sample")
    records: list[Record] = []
    complaints: list[tuple[str, str]] = []
    for index, sample in enumerate(samples):
        name = str(sample.get("id", f"#{index}")) if isinstance(sample, dict) else f"#{index}"
        name = name.encode("utf-8", "backslashreplace").decode()  # it is printed and written to reports
        try:
            records.append(_record(sample, name, str(data_path)))
        except ValueError as error:
            complaints.append((name, str(error)))
    return records, complaints


def raise_problems(problems: list[str], source: str, num_samples: int) -> None:
    """Raise one error for all bad samples of a file, if there are any."""
    if problems:
        headline = (
            f"{source}: {len(problems)} of {num_samples} samples can't be used; correct or remove them:"
        )
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ValueError("\n  ".join([headline, *problems[:_SHOWN], *more]))


def effective_messages(conversations: Any) -> list[dict[str, Any]]:
    """Return the messages that are trained on: a first message from gpt answers nothing and is dropped."""
    messages = list(conversations)
    return messages[1:] if messages and messages[0]["from"] == "gpt" else messages


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError as error:
        raise ValueError(f"training data {path} does not exist: check --data_path") from error
    except RecursionError as error:
        raise ValueError(
            f"training data {path} is nested too deep to be read: a sample is an object with a flat list of "
            "messages; remove what lies deeper"
        ) from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, a number of thousands of digits
        raise ValueError(
            f"training data {path} is not valid JSON ({error}); it must be one JSON list (JSONL is not read)"
        ) from error
    except OSError as error:
        raise ValueError(f"training data {path} can't be read ({error}): check --data_path") from error


def _record(sample: Any, name: str, source: str) -> Record:
    if not isinstance(sample, dict):
        raise ValueError(f"found a {type(sample).__name__}, expected an object")
    conversations = _checked_conversations(sample)
    image = _checked_image(sample, conversations)
    return Record(name, image, tuple(conversations), source)


def _checked_conversations(sample: dict[str, Any]) -> list[dict[str, Any]]:
    if "conversations" not in sample:
        raise ValueError(f"found no `conversations`, only {sorted(sample)}; expected a list of messages")
    messages = sample["conversations"]
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"`conversations` must be a list of messages, found {messages!r:.60}")
    for position, message in enumerate(messages):
        _check_message(message, position)
    check_turns(messages)
    return messages


def _check_message(message: Any, position: int) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("value"), str):
        raise ValueError(
            f'message {position} is {message!r:.60}, expected {{"from": "human" or "gpt", "value": text}}'
        )
    if message.get("from") not in _SPEAKERS:
        raise ValueError(f"message {position} is from {message.get('from')!r}, expected human or gpt")
    _check_text(message["value"], f"message {position}")


def _check_text(text: str, where: str) -> None:
    r"""Refuse half a character, as JSON's "\ud800" alone is: no tokenizer and no file system takes it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} holds {text[error.start]!r} at character {error.start}, half of a character; expected "
            "Unicode text: write the character whole or remove it"
        ) from error


def check_turns(conversations: Any, *, may_end_open: bool = False) -> None:
    """Refuse messages in which human and gpt don't take turns, or (unless allowed) the last one is human."""
    messages = effective_messages(conversations)
    skipped = len(conversations) - len(messages)
    for position, message in enumerate(messages):
        expected = _SPEAKERS[position % 2]
        if message["from"] != expected:
            raise ValueError(
                f"message {position + skipped} is from {message['from']}, expected {expected}: "
                "human and gpt must take turns"
            )
    if not messages or (len(messages) % 2 and not may_end_open):
        raise ValueError("the last message must be an answer from gpt to a human message, found none")


def _checked_image(sample: dict[str, Any], conversations: list[dict[str, Any]]) -> str | None:
    """Return the image path; an image needs exactly one `<image>`, in a human message."""
    image = sample.get("image")
    if "image" in sample and not (isinstance(image, str) and image):
        raise ValueError(
            f"`image` is {image!r:.60}, expected one path; leave the key out in a text-only sample "
            "(several images in a sample are not supported)"
        )
    _check_text(image or "", "`image`")
    messages = effective_messages(conversations)
    if image is None:
        _refuse_forgotten_image(messages)
        return None
    speakers = [
        message["from"] for message in messages for _ in range(message["value"].count(DEFAULT_IMAGE_TOKEN))
    ]
    if speakers != ["human"]:
        raise ValueError(
            f"found `<image>` {len(speakers)} times (from: {', '.join(speakers) or 'nobody'}), expected it "
            "once, in a human message, because the sample has one `image`"
        )
    return image


def _refuse_forgotten_image(messages: list[dict[str, Any]]) -> None:
    """Refuse a human message that shows an image which the sample doesn't name.

    `<image>` inside a text (of RSS or SVG, as shared dialogues have it) is ordinary text, as in the original.
    """
    for message in messages:
        text = message["value"].strip()
        shows = text.startswith(DEFAULT_IMAGE_TOKEN) or text.endswith(DEFAULT_IMAGE_TOKEN)
        if message["from"] == "human" and shows:
            raise ValueError(
                "a human message begins or ends with `<image>`, but the sample has no `image`: name the file"
            )
