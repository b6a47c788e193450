"""Between LLaVA's format and transformers' LlavaForConditionalGeneration, and from the DPN authors' format.

python -m llava.model.convert --src liuhaotian/llava-v1.5-7b --dst checkpoints/llava-1.5-7b-hf --to hf
python -m llava.model.convert --src llava-hf/llava-1.5-7b-hf --dst checkpoints/llava-v1.5-7b --to llava
python -m llava.model.convert --src AisingioroHao0/DPN-LLaVA-1.5-7B --dst checkpoints/dpn-llava-7b --to dpn
"""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
)

from llava.model import hf_format
from llava.model.assemble import assemble, check_tower, source_config
from llava.model.commands import dtype_named, new_folder, run, saved_dtype
from llava.model.files import Kind, find_file, find_source, is_hf_format
from llava.model.hf_tokenizer import add_hf_tokens, write_llava_tokenizer
from llava.model.loading import check_kernels
from llava.model.released import is_released
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import load_clip, load_processor, vision_config

logger = logging.getLogger(__name__)

TOWER_FOLDER = "vision_tower"
"""Where the vision tower lies in a directory that came from an HF-format checkpoint."""
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")


def to_hf(source: str, target: Path, *, dtype: torch.dtype | None = None, base: str | None = None) -> None:
    """Write a LLaVA checkpoint as an HF-format one, with its vision tower, tokenizer and processor.

    Logits are those of the checkpoint, and so are greedy answers to the same ids and pixels; HF's own loss
    may differ in the last digits, because its vocabulary has rows more.

    Args:
        source: a checkpoint of any kind: directory or hub id.
        target: folder to write.
        dtype: of the weights that are written; None for what config.json says.
        base: the language model that a projector-only or LoRA directory belongs to.

    Raises:
        ValueError: `source` isn't a LLaVA-1.5 checkpoint that HF's class can express.
    """
    found = find_source(source, base)
    if found.kind is Kind.HF:
        raise ValueError(f"{source} is an HF-format checkpoint already")
    config = source_config(found)
    dtype = dtype or saved_dtype(config)
    if config.mm_vision_tower is None:
        raise ValueError(f"{source} is a text-only model: its config.json names no mm_vision_tower")
    tokenizer = load_tokenizer(found.weights)
    hf_format.hf_config(config, vision_config(config.mm_vision_tower), rows=1)  # refuses before loading
    model = assemble(found, config, tokenizer, dtype=dtype)
    tower = model.get_vision_tower()
    tower.load_model(dtype=dtype)
    assert tower.vision_tower is not None
    rows = add_hf_tokens(tokenizer)
    description = hf_format.hf_config(model.config, tower.config, rows)
    weights = hf_format.hf_weights(model.state_dict(), tower.vision_tower.state_dict(), rows)
    with torch.device("meta"):
        shell = LlavaForConditionalGeneration(description).to(dtype)  # pyright: ignore[reportArgumentType]
    if model.generation_config is not None:
        shell.generation_config = model.generation_config
        shell.generation_config.pad_token_id = rows + 1
    shell.save_pretrained(target, state_dict=weights, save_original_format=False)
    LlavaProcessor(
        image_processor=_hf_processor(tower.image_processor, pad=model.config.image_aspect_ratio == "pad"),
        tokenizer=tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=description.vision_feature_select_strategy,
        num_additional_image_tokens=1,
    ).save_pretrained(target)


def to_llava(
    source: str, target: Path, *, dtype: torch.dtype | None = None, vision_tower: str | None = None
) -> None:
    """Write an HF-format checkpoint as LLaVA's, with its vision tower in the folder `vision_tower`.

    Args:
        source: HF-format directory or hub id.
        target: folder to write.
        dtype: of the weights that are written; None for what config.json says.
        vision_tower: name that config.json gives the tower instead, e.g. openai/clip-vit-large-patch14-336,
            as upstream's code needs it; its weights must be those of the checkpoint.

    Raises:
        ValueError: `source` isn't a LLaVA-1.5, or `vision_tower` is another one than its own.
    """
    if not is_hf_format(source):
        raise ValueError(f"{source} isn't in HF format: its config.json has no text_config")
    found = find_source(source, None)
    config = source_config(found)
    dtype = dtype or saved_dtype(config)
    clip = load_clip(source, dtype)
    if vision_tower is not None:
        _require_same(clip, load_clip(vision_tower, dtype), vision_tower)
    model = assemble(found, config, None, dtype=dtype)
    model.config.mm_vision_tower = vision_tower or TOWER_FOLDER
    model.save_pretrained(target)
    if vision_tower is None:
        state = {f"vision_model.{name}": value for name, value in clip.state_dict().items()}
        clip.save_pretrained(target / TOWER_FOLDER, state_dict=state, save_original_format=False)
        load_processor(source).save_pretrained(target / TOWER_FOLDER)
    if any(find_file(source, name) is not None for name in TOKENIZER_FILES):
        write_llava_tokenizer(source, target, hf_format.vocab_rows(source))
    else:
        logger.warning("%s holds no tokenizer; copy its language model's to %s", source, target)


def to_dpn(source: str, target: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint of the DPN authors' as ours: `reduction` for `pooling`, routers in `model.reducer`.

    Weights, tokenizer and answers stay. A tower inside the checkpoint stays there, and the folder it is
    described in goes along if it lies in `source`.

    Args:
        source: directory or hub id.
        target: folder to write.
        dtype: of the weights that are written; None for what config.json says.

    Raises:
        ValueError: `source` isn't in the authors' format, or has a setting that isn't supported.
    """
    found = find_source(source, None)
    if not is_released(source):
        raise ValueError(f"{source} isn't in the DPN authors' format: its config.json has no `pooling`")
    config = source_config(found)
    check_tower(found, config)
    check_kernels(config)
    tokenizer = load_tokenizer(source)
    model = assemble(found, config, tokenizer, dtype=dtype or saved_dtype(config))
    tower = config.mm_vision_tower
    brought = tower is not None and Path(tower).is_dir() and Path(source) in Path(tower).parents
    if brought:
        model.config.mm_vision_tower = TOWER_FOLDER
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if brought:
        assert tower is not None
        shutil.copytree(tower, target / TOWER_FOLDER)


def _hf_processor(processor: CLIPImageProcessorPil, *, pad: bool) -> Any:
    """Give LLaVA's preprocessing as an HF processor: plain CLIP crops, LlavaImageProcessor can pad first."""
    if not pad:
        return processor
    fields: dict[str, Any] = processor.to_dict()
    fields = {name: value for name, value in fields.items() if not name.startswith("image_processor")}
    fields["do_pad"] = True
    return LlavaImageProcessorPil(**fields)


def _require_same(clip: CLIPVisionModel, named: CLIPVisionModel, name: str) -> None:
    """Refuse to name a tower that isn't the checkpoint's own."""
    theirs = named.state_dict()
    different = [key for key, value in clip.state_dict().items() if not _equal(value, theirs.get(key))]
    if different:
        raise ValueError(
            f"the tower {name} has other weights than the checkpoint's own (e.g. {different[0]}); leave "
            f"--vision-tower out to write the checkpoint's tower beside it"
        )


def _equal(value: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(value, other)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.model.convert", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--src", required=True, help="checkpoint to read: directory or hub id")
    parser.add_argument("--dst", required=True, type=Path, help="folder to write; must be empty or new")
    parser.add_argument("--to", required=True, choices=["hf", "llava", "dpn"])
    parser.add_argument("--base", "--model-base", help="language model of a projector-only or LoRA directory")
    parser.add_argument(
        "--dtype", type=dtype_named, help="of the weights written; default: as config.json says"
    )
    parser.add_argument("--vision-tower", "--vision_tower", help="with --to llava: name of an equal tower")
    arguments = parser.parse_args(argv)
    target = new_folder(arguments.dst)
    if arguments.to == "hf":
        to_hf(arguments.src, target, dtype=arguments.dtype, base=arguments.base)
    elif arguments.to == "dpn":
        to_dpn(arguments.src, target, dtype=arguments.dtype)
    else:
        to_llava(arguments.src, target, dtype=arguments.dtype, vision_tower=arguments.vision_tower)


if __name__ == "__main__":
    run(main, "python -m llava.model.convert")
