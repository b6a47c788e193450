"""Images to pixels and prompts to token ids, in the way LLaVA-1.5 was trained.

Shapes: B images or prompts, N crops of one image, S side of the tower's square input, T ids generated so far.
"""

import ast
import base64
import binascii
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX

Size = tuple[int, int]
"""Width and height in pixels."""


def load_image(path: str | Path) -> Image.Image:
    """Open an image file completely, as RGB; transparency is dropped and a rotation mark is not applied."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise ValueError(f"image {path} does not exist: check the image folder and the sample") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image {path} can't be read ({error}): replace the file or remove its sample"
        ) from error


def load_image_from_base64(image: str) -> Image.Image:
    """Decode an image file that was sent as base64 text, in the file's own mode.

    Raises:
        ValueError: the text is not base64, or what it holds is no image.
    """
    try:
        opened = Image.open(io.BytesIO(base64.b64decode(image, validate=True)))
        opened.load()
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"the text {image[:20]!r}... holds no image that can be read ({error}): send the bytes of an "
            "image file as base64, without a `data:` prefix"
        ) from error
    return opened


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stop a prompt's answer once it holds a keyword; upstream's name, for code that still passes it.

    Only the answer is searched: `generate` of LLaVA hands over new ids alone, and ids that begin with the
    prompt are recognised as such. An end token needs no keyword.
    """

    def __init__(
        self, keywords: Sequence[str], tokenizer: PreTrainedTokenizerBase, input_ids: Tensor
    ) -> None:
        """Take the prompt's ids (B, L) too; raises `ValueError` for an empty keyword."""
        if not keywords or not all(keywords):
            raise ValueError(f"keywords must be texts to stop at, got {list(keywords)}")
        self.keywords = tuple(keywords)
        self.tokenizer = tokenizer
        self.input_ids = input_ids

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - it asks for a BoolTensor
        self, input_ids: Tensor, scores: Any, **kwargs: Any
    ) -> Tensor:
        """Return for ids (B, T) which answers are complete, (B,) bool."""
        prompt = self.input_ids.to(input_ids.device)
        length = prompt.shape[1]
        is_whole = input_ids.shape[1] >= length and torch.equal(input_ids[: len(prompt), :length], prompt)
        answers = self.tokenizer.batch_decode(input_ids[:, length if is_whole else 0 :])
        found = [any(keyword in answer for keyword in self.keywords) for answer in answers]
        return torch.tensor(found, device=input_ids.device)


@overload
def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = ...,
    return_tensors: None = ...,
) -> list[int]: ...
@overload
def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = ...,
    *,
    return_tensors: Literal["pt"],
) -> Tensor: ...
@overload
def tokenizer_image_token(
    prompt: str, tokenizer: PreTrainedTokenizerBase, image_token_index: int, return_tensors: Literal["pt"]
) -> Tensor: ...
def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> list[int] | Tensor:
    """Return the ids of a prompt, with `image_token_index` for every `<image>`: a list, or (L,) int64.

    The text between images is tokenised piece by piece and only the first piece keeps its begin token, so
    text after an image starts with a prefix space of its own: "a<image>b" -> [1, 263, -200, 289].
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors must be None or 'pt', got {return_tensors!r}")
    ids: list[int] = []
    for index, text in enumerate(prompt.split(DEFAULT_IMAGE_TOKEN)):
        piece: list[int] = tokenizer(text).input_ids
        if index == 0:
            ids = piece
        else:
            ids += [image_token_index, *without_begin_token(piece, tokenizer)]
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


def without_begin_token(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Drop the begin token from the ids of a later piece of a prompt, if the tokenizer wrote one."""
    return ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids


def process_images(
    images: Image.Image | Sequence[Image.Image], image_processor: Any, model_cfg: Any
) -> Tensor | list[Tensor]:
    """Turn images, or one, into normalised pixels (B, 3, S, S) as `model_cfg.image_aspect_ratio` says.

    `pad` fills to a square with the mean colour, `anyres` gives every image N crops (N, 3, S, S), everything
    else leaves resizing and centre cropping to the processor. Images of unequal N come back as a list.
    """
    aspect_ratio = getattr(model_cfg, "image_aspect_ratio", None)  # absent in old checkpoints: centre crop
    given = [images] if isinstance(images, Image.Image) else images
    images = [image.convert("RGB") for image in given]
    if aspect_ratio == "anyres":
        pixels = [
            process_anyres_image(image, image_processor, model_cfg.image_grid_pinpoints) for image in images
        ]
        is_even = len({item.shape for item in pixels}) == 1
        return torch.stack(pixels) if is_even else pixels  # (B, N, 3, S, S)
    if aspect_ratio == "pad":
        images = [expand2square(image, mean_colour(image_processor)) for image in images]
    return image_processor(images, return_tensors="pt")["pixel_values"]


def mean_colour(image_processor: Any) -> tuple[int, ...]:
    """Return the processor's mean as an 8-bit colour: (122, 116, 104) for CLIP."""
    return tuple(int(255 * channel) for channel in image_processor.image_mean)


def expand2square(image: Image.Image, background_color: tuple[int, ...]) -> Image.Image:
    """Centre an image on a square of its longer side; an odd line of filling goes below or to the right."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), background_color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def select_best_resolution(original_size: Size, possible_resolutions: list[Size]) -> Size:
    """Return the resolution that keeps most of the image's pixels; among equals the one that wastes least."""
    width, height = original_size

    def merit(resolution: Size) -> tuple[int, int]:
        scale = min(resolution[0] / width, resolution[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - resolution[0] * resolution[1]

    return max(possible_resolutions, key=merit)


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """Fit an image into a size without changing its proportions, centred on black."""
    (width, height), (target_width, target_height) = image.size, target_resolution
    scale_x, scale_y = target_width / width, target_height / height
    if scale_x < scale_y:
        fitted = (target_width, min(math.ceil(height * scale_x), target_height))
    else:
        fitted = (min(math.ceil(width * scale_y), target_width), target_height)
    canvas = Image.new("RGB", target_resolution, (0, 0, 0))
    canvas.paste(image.resize(fitted), ((target_width - fitted[0]) // 2, (target_height - fitted[1]) // 2))
    return canvas


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Cut an image into square tiles, row by row; tiles over the edge are filled with black."""
    width, height = image.size
    corners = [(x, y) for y in range(0, height, patch_size) for x in range(0, width, patch_size)]
    return [image.crop((x, y, x + patch_size, y + patch_size)) for x, y in corners]


def get_anyres_image_grid_shape(
    image_size: Size, grid_pinpoints: str | list[Size], patch_size: int
) -> tuple[int, int]:
    """Return how many tiles (across, down) the best resolution of an image has."""
    width, height = select_best_resolution(image_size, _resolutions(grid_pinpoints))
    return width // patch_size, height // patch_size


def process_anyres_image(image: Image.Image, processor: Any, grid_pinpoints: str | list[Size]) -> Tensor:
    """Return the image squeezed to the tower's size, then the tiles of its best resolution: (N, 3, S, S)."""
    best = select_best_resolution(image.size, _resolutions(grid_pinpoints))
    tiles = divide_to_patches(resize_and_pad_image(image, best), processor.crop_size["height"])
    side = processor.size["shortest_edge"]
    return processor([image.resize((side, side)), *tiles], return_tensors="pt")["pixel_values"]


def get_model_name_from_path(model_path: str) -> str:
    """Return the last part of a path; a `checkpoint-*` folder takes its parent's name in front."""
    parts = model_path.strip("/").split("/")
    if parts[-1].startswith("checkpoint-") and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]


def _resolutions(grid_pinpoints: str | list[Size]) -> list[Size]:
    """Read the candidate resolutions: config.json holds a list, or the text of one."""
    candidates = ast.literal_eval(grid_pinpoints) if isinstance(grid_pinpoints, str) else grid_pinpoints
    return [(width, height) for width, height in candidates]
