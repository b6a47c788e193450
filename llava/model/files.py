"""What a checkpoint directory or hub repository holds: its kind is decided by its files and its config.json.

Directory names decide nothing (upstream's rule, which asked them for "llava", "lora" and "mpt", isn't kept).
"""

import json
import logging
import pickle
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import cached_file

logger = logging.getLogger(__name__)

WEIGHT_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
PROJECTOR_FILE = "mm_projector.bin"
ADAPTER_FILE = "adapter_config.json"
NON_LORA_FILE = "non_lora_trainables.bin"


class Kind(StrEnum):
    """What a checkpoint directory holds."""

    FULL = "full checkpoint"
    PROJECTOR = "projector-only directory"
    LORA = "LoRA directory"
    HF = "HF-format checkpoint"


class Source(NamedTuple):
    """Where everything of a model is read from."""

    kind: Kind
    path: str
    """config.json, and the weights that its kind has."""
    weights: str
    """The language model's weights and the tokenizer: `path` itself, or the base."""


def find_source(path: str, base: str | None) -> Source:
    """Decide what `path` is and where its language model comes from.

    Raises:
        ValueError: no checkpoint there, a base is missing or one is given to a checkpoint that needs none.
    """
    directory = checkpoint_directory(path)
    if base is not None:
        checkpoint_directory(base)
    if base is not None and find_file(base, ADAPTER_FILE) is not None:
        raise ValueError(
            f"the base {base} is itself a LoRA directory; merge it first with scripts/merge_lora_weights.py"
        )
    adapter = find_file(path, ADAPTER_FILE)
    if adapter is not None:
        trained_on = str(read_object(adapter).get("base_model_name_or_path") or "")
        found = _require_base(path, base, Kind.LORA, f", which was trained on {trained_on!r}")
        if trained_on and Path(found).name != Path(trained_on).name:
            logger.warning(  # only names can tell: the shapes of two fine-tuned models are alike
                "%s was trained on %s and is put onto %s: make sure that these are the same weights",
                path,
                trained_on,
                found,
            )
        return Source(Kind.LORA, path, found)
    if is_hf_format(path):
        if base is not None:
            raise ValueError(f"{path} is an HF-format checkpoint, which needs no base; leave model_base out")
        return Source(Kind.HF, path, path)
    has_weights = not directory.is_dir() or any((directory / name).is_file() for name in WEIGHT_FILES)
    has_projector = (base is not None or not has_weights) and find_file(path, PROJECTOR_FILE) is not None
    if has_projector:
        return Source(Kind.PROJECTOR, path, _require_base(path, base, Kind.PROJECTOR))
    if base is not None:
        raise ValueError(
            f"model_base={base} was given, but {path} holds neither {PROJECTOR_FILE} nor {ADAPTER_FILE}; "
            + ("it is a full checkpoint: leave model_base out" if has_weights else "run stage 1 first")
        )
    if not has_weights:
        raise ValueError(
            f"{path} holds no weights: expected one of {', '.join(WEIGHT_FILES)} (a full checkpoint), "
            f"{PROJECTOR_FILE} (a projector-only directory) or {ADAPTER_FILE} (a LoRA directory)"
        )
    return Source(Kind.FULL, path, path)


def checkpoint_directory(path: str) -> Path:
    """Give the checkpoint directory; a hub id passes as it is.

    Raises:
        ValueError: neither a directory with a config.json nor something that can be a hub id.
    """
    directory = Path(path)
    if directory.is_dir() and not (directory / "config.json").is_file():
        raise ValueError(
            f"{path} holds no config.json; give a checkpoint directory (its last training step's, for "
            f"example)"
        )
    require_place(path, "checkpoint")
    return directory


def require_place(path: str, what: str) -> None:
    """Refuse what is neither a directory nor can be a hub id, before the hub is asked for it.

    Raises:
        ValueError: no `what` can be there.
    """
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise ValueError(f"no {what} at {path}: no such directory, and it can't be a hub id (owner/name)")


def is_hf_format(path: str) -> bool:
    """Tell whether config.json is that of transformers' LlavaForConditionalGeneration (`llava-hf/*`).

    Its `model_type` is `llava`, as in LLaVA's own published checkpoints; only its nested `text_config` tells
    them apart.

    Raises:
        ValueError: there is no config.json, or the hub can't be reached.
    """
    return "text_config" in config_fields(path)


def config_fields(path: str, *, cache_dir: str | None = None) -> dict[str, Any]:
    """Read the fields of a directory's or hub repository's config.json as they stand there.

    Raises:
        ValueError: there is no config.json, it holds no JSON object, or the hub can't be reached.
    """
    file = find_file(path, "config.json", cache_dir=cache_dir)
    if file is not None:
        read_object(file)  # transformers takes a list for the fields
    try:
        fields, _ = PreTrainedConfig.get_config_dict(path, cache_dir=cache_dir)
    except OSError as error:
        raise ValueError(f"{path}: its config.json can't be read: {error}") from error
    return fields


def find_file(path: str, name: str, *, cache_dir: str | None = None) -> Path | None:
    """Find a file of a directory or hub repository (it is fetched); None where there is none.

    Raises:
        ValueError: the hub can't be reached, or has no such repository.
    """
    try:
        found = cached_file(path, name, cache_dir=cache_dir, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise ValueError(f"can't look for {name} in {path}: {error}") from error
    return None if found is None else Path(found)


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: it can't be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a JSON {type(content).__name__}; expected an object, {{...}}")
    return content


def find_weights(path: str, *, cache_dir: str | None = None) -> Path | None:
    """Find the file that transformers would read weights from, or their index; None where there is none.

    Raises:
        ValueError: the index is damaged, or the hub can't be reached.
    """
    found = (find_file(path, name, cache_dir=cache_dir) for name in WEIGHT_FILES)
    file = next((file for file in found if file is not None), None)
    if file is not None and file.suffix == ".json":
        read_index(file)
        if "metadata" not in read_object(file):
            raise ValueError(f'{file} has no metadata, which transformers reads; add "metadata": {{}} to it')
    return file


def read_index(file: Path) -> dict[str, str]:
    """Read which shard every weight lies in.

    Raises:
        ValueError: it isn't what `save_pretrained` writes.
    """
    weight_map = read_object(file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{file} has no weight_map, which says in which shard every weight lies")
    return weight_map


def weight_names(path: str, *, cache_dir: str | None = None) -> set[str]:
    """List the names of a checkpoint's weights, none where it holds no weights of its own.

    Nothing is read that an index already names.

    Raises:
        ValueError: the file can't be read.
    """
    file = find_weights(path, cache_dir=cache_dir)
    if file is None:
        return set()
    if file.suffix == ".json":
        return set(read_index(file))
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    return set(read_tensors(file))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .bin or .safetensors file to the CPU. Pickled code is never executed.

    Raises:
        ValueError: the file can't be read, or holds anything else than a flat dictionary of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, SafetensorError) as error:
        raise ValueError(f"{path} can't be read as plain weights: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds something else than a dictionary of tensors")
    return tensors


def read_matching(path: str, part: str) -> dict[str, Tensor]:
    """Read the tensors of a local checkpoint whose name contains `part`, opening no other shard.

    Raises:
        ValueError: the directory holds no weights, or a shard that its index names is missing.
    """
    folder = Path(path)
    found: dict[str, Tensor] = {}
    for file in _shards(folder):
        if not file.is_file():
            raise ValueError(f"{folder} holds no {file.name}, which its index names")
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                found |= {name: opened.get_tensor(name) for name in opened.keys() if part in name}  # noqa: SIM118 - no mapping
        else:
            found |= {name: value for name, value in read_tensors(file).items() if part in name}
    return found


def _shards(folder: Path) -> list[Path]:
    """List the weight files that transformers would read, in its order of preference."""
    name = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if name is None:
        raise ValueError(f"{folder} holds no weights: expected one of {', '.join(WEIGHT_FILES)}")
    if not name.endswith(".json"):
        return [folder / name]
    return [folder / shard for shard in sorted(set(read_index(folder / name).values()))]


def _require_base(path: str, base: str | None, kind: Kind, hint: str = "") -> str:
    if base is not None:
        return base
    raise ValueError(f"{path} is a {kind}{hint}; name its language model with model_base (--model-base)")
