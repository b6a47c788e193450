r"""The labels that the original gives to the ChatML format, wherever its count of tokens adds up.

It counts the tokens of every round on its own, as if each began with a begin token. Where the sum is right
by chance, the first answer's labels sit one token too early: the newline after the role is learned, the end
token isn't. This is kept because it is what a checkpoint of the original has seen; where the sum is wrong,
the original learns nothing from the sample and ours has the labels of `encode.py`.

    <|im_start|>assistant \n A cat . <|im_end|>
    original               ^^^^^^^^^^^
    ours                      ^^^^^^^^^^^^^^^^^^
"""

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX
from llava.conversation import Conversation


def original_mpt_labels(
    prompt: str,
    ids: list[int],
    tokenizer: PreTrainedTokenizerBase,
    template: Conversation,
    count: Callable[[str], int],
) -> list[int] | None:
    """Return the original's labels (L,) of a training prompt, or None where it gave the sample up.

    They are copies of the ids, also where an answer holds an image.

    Args:
        prompt: the whole training prompt.
        ids: its ids (L,), cut at the tokenizer's `model_max_length` if the original cut them.
        tokenizer: the one that made the ids.
        template: the ChatML template of the prompt.
        count: how many ids a text has on its own.
    """
    opening = template.sep + template.roles[1]
    is_legacy = bool(getattr(tokenizer, "legacy", False))  # other tokenizers than Llama's have no such field
    labels = [IGNORE_INDEX] * len(ids)
    start = 0
    for index, text in enumerate(_rounds(prompt, template.sep)):
        if text.count(opening) != 1:
            break
        read = text[: text.index(opening)] + opening
        correction = int(index > 0 and is_legacy)
        first, end = start + count(read) - 1 + correction, start + count(text) + correction
        for position in range(first, min(end, len(ids))):
            labels[position] = ids[position]
        start = end
    num_visible = sum(token != tokenizer.pad_token_id for token in ids)
    return labels if start >= tokenizer.model_max_length or start == num_visible else None


def _rounds(prompt: str, end: str) -> list[str]:
    """Cut a prompt into system, question and answer, then pairs of question and answer, without last ends."""
    turns = prompt.split(end)
    starts = [0, *range(3, len(turns), 2)]
    return [end.join(turns[start : 3 if start == 0 else start + 2]) for start in starts]
