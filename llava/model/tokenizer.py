"""The Llama tokenizer with the ids that LLaVA-1.5 was trained on.

LLaVA used the sentencepiece ("slow") tokenizer of transformers 4. Its successor in transformers 5 gives other
ids to text that begins with a space, as text after an image may: sentencepiece puts its prefix space before a
text whatever it begins with, transformers 5 only before one that doesn't begin with a space already. With the
leading space doubled, transformers 5 gives the ids of sentencepiece.
"""

from pathlib import Path
from typing import Any

import transformers
from tokenizers import Regex, normalizers
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from llava.model.files import find_file, read_object, require_place

_LLAMA_CLASSES = (None, "LlamaTokenizer", "LlamaTokenizerFast")
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError)
JSON_FILES = ("tokenizer_config.json", "tokenizer.json")
_LEADING_SPACE = "\ufdd0"
"""Stands for the space that a whole text begins with; Unicode promises never to make it a character."""


class LlamaTokenizer(transformers.LlamaTokenizer):
    """Llama tokenizer with sentencepiece's prefix space, for either value of `legacy`.

    `legacy=True` puts the prefix before every piece of text between special tokens, so the backend's
    normalizer doubles the leading space of each piece. `legacy=False` puts it before the whole text only; a
    normalizer can't tell which piece is the first, so a mark in place of that leading space tells it.

    It has the name of its base class because transformers writes the name into tokenizer_config.json, and the
    folders it saves have to load without it, too.
    """

    # A class with its own __init__ gets its backend built from the vocabulary, whatever the file format.
    def __init__(self, vocab: Any = None, merges: Any = None, *, legacy: bool = False, **kwargs: Any) -> None:
        super().__init__(vocab=vocab, merges=merges, legacy=legacy, **kwargs)
        self.init_kwargs["legacy"] = legacy  # the base class forgets to save it
        doubled = r"\A[ ▁]" if legacy else rf"\A{_LEADING_SPACE}"
        self.backend_tokenizer.normalizer = normalizers.Replace(Regex(doubled), "  ")

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Save the sentencepiece file, too, if there is one: transformers 4 reads nothing else."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        if self.can_save_slow_tokenizer:
            saved += tuple(self.save_vocabulary(str(save_directory)))
        return saved

    def _encode_plus(self, text: Any, text_pair: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        if not self.legacy and not kwargs.get("is_split_into_words"):
            text, text_pair = _marked(text), _marked(text_pair)
        return super()._encode_plus(text, text_pair, *args, **kwargs)


def load_tokenizer(
    path: str | Path,
    *,
    model_max_length: int | None = None,
    padding_side: str = "right",
    cache_dir: str | None = None,
    use_fast: bool | None = None,
) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer; one that is not Llama's comes as transformers has it.

    A missing pad token becomes the unknown token, as in LLaVA; padding is masked by position, not by its id.

    Args:
        path: directory or hub id.
        model_max_length: where texts are cut if that is asked for; the default is the checkpoint's.
        padding_side: left or right.
        cache_dir: where files of the hub are kept.
        use_fast: taken as LLaVA's code gives it, and ignored: ids are those of the slow tokenizer always.

    Raises:
        ValueError: there is no such place, or it holds no tokenizer that can be read.
    """
    require_place(str(path), "tokenizer")
    options: dict[str, Any] = {"padding_side": padding_side, "cache_dir": cache_dir}
    if model_max_length is not None:
        options["model_max_length"] = model_max_length
    try:
        for file in (find_file(str(path), name, cache_dir=cache_dir) for name in JSON_FILES):
            _ = None if file is None else read_object(file)  # transformers takes a list for the fields
        declared = get_tokenizer_config(path, cache_dir=cache_dir)
        kind = LlamaTokenizer if declared.get("tokenizer_class") in _LLAMA_CLASSES else AutoTokenizer
        tokenizer = kind.from_pretrained(path, **options)
        if kind is LlamaTokenizer and "legacy" not in declared and tokenizer.can_save_slow_tokenizer:
            # a sentencepiece file older than the field: transformers 4 takes true, 5 takes false
            tokenizer = kind.from_pretrained(path, legacy=True, **options)
    except UNREADABLE as error:
        raise ValueError(
            f"{path} holds no tokenizer that can be read ({error}): give a folder with tokenizer.model or "
            "tokenizer.json, or a model name on the hub"
        ) from error
    if tokenizer.vocab_size <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"{path} holds no vocabulary: copy tokenizer.model or tokenizer.json of its language model there"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _marked(text: Any) -> Any:
    """Mark the leading space of a text, or of each text of a batch; one character for one keeps offsets."""
    if isinstance(text, str):
        return _LEADING_SPACE + text[1:] if text.startswith((" ", "▁")) else text
    return [_marked(item) for item in text] if isinstance(text, list | tuple) else text
