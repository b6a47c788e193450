"""HF-format tokenizers have two tokens more than LLaVA's, `<image>` and `<pad>`: added and removed here."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.files import find_file

PAD_TOKEN = "<pad>"
COPIED = ("tokenizer.model",)
EDITED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def add_hf_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add `<image>` and `<pad>` behind everything; returns the number of tokens before, `<image>`'s id.

    Raises:
        ValueError: the tokenizer has one of the two already.
    """
    rows = len(tokenizer)
    known = set(tokenizer.get_vocab()) & {DEFAULT_IMAGE_TOKEN, PAD_TOKEN}
    if known:
        raise ValueError(f"the tokenizer has {', '.join(sorted(known))} already; is it an HF-format one?")
    tokenizer.add_tokens([DEFAULT_IMAGE_TOKEN], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return rows


def write_llava_tokenizer(source: str, target: Path, rows: int) -> None:
    """Copy an HF-format tokenizer to `target` without its tokens at `rows` and behind.

    A pad token that goes along becomes the unknown token, which LLaVA pads with.

    Raises:
        ValueError: `source` has no tokenizer, or other tokens than `<image>` and `<pad>` there.
    """
    files = {name: file for name in (*COPIED, *EDITED) if (file := find_file(source, name)) is not None}
    if not {"tokenizer.model", "tokenizer.json"} & set(files):
        raise ValueError(f"{source} holds no tokenizer: copy tokenizer.model of its language model there")
    contents = {
        name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if name in EDITED
    }
    dropped = _drop_added(contents, rows)
    strange = dropped - {DEFAULT_IMAGE_TOKEN, PAD_TOKEN}
    if strange:
        raise ValueError(
            f"the tokenizer of {source} has the tokens {', '.join(sorted(strange))} behind <image>, "
            f"for which LLaVA's vocabulary of {rows} rows has no place"
        )
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _drop_names(contents.get(name, {}), dropped)
    for name, content in contents.items():
        (target / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    for name in COPIED:
        if name in files:
            shutil.copyfile(files[name], target / name)


def _drop_added(contents: dict[str, Any], rows: int) -> set[str]:
    """Remove the added tokens whose id is `rows` or more; returns them."""
    added = contents.get("added_tokens.json", {})
    dropped = {token for token, index in added.items() if index >= rows}
    for token in dropped:
        del added[token]
    decoder = contents.get("tokenizer_config.json", {}).get("added_tokens_decoder", {})
    for index in [index for index in decoder if int(index) >= rows]:
        dropped.add(decoder.pop(index)["content"])
    fast = contents.get("tokenizer.json", {})
    behind = [token for token in fast.get("added_tokens", []) if token["id"] >= rows]
    if behind:
        fast["added_tokens"] = [token for token in fast["added_tokens"] if token["id"] < rows]
    return dropped | {token["content"] for token in behind}


def _drop_names(fields: dict[str, Any], dropped: set[str]) -> None:
    """Remove the roles that dropped tokens had; LLaVA has no role for images and pads with <unk>."""
    for name in ("image_token", "processor_class", "extra_special_tokens", "model_specific_special_tokens"):
        fields.pop(name, None)
    pad = fields.get("pad_token")
    if (pad.get("content") if isinstance(pad, dict) else pad) in dropped:
        fields["pad_token"] = "<unk>"
