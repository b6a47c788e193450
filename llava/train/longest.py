"""The longest micro batch that a run is going to see, found before it starts.

Shapes: L tokens of a sample, an image counting as one.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from llava.data.sampler import ModalityLengthSampler

TOKENS_PER_WORD = 1.4
"""Of Llama's tokenizer on the 665K texts' kind of English; it only ranks batches against each other."""


class Load(NamedTuple):
    """What the decoder has to do for one micro batch."""

    visual_tokens: int
    text_tokens: int
    """All tokens but the visual ones."""
    learned_tokens: int


def longest_batch(
    lengths: Sequence[int],
    *,
    batch_size: int,
    num_chunks: int,
    tokens_per_image: int,
    longest: int,
    is_grouped: bool,
    seed: int,
) -> list[int]:
    """Find the micro batch of the first epoch that has the most tokens: indices of samples.

    With `--group_by_modality_length` it is a batch of the order that training takes. Without, it is the
    longest one of a shuffled order, which stands for the others.

    Args:
        lengths: words of every sample, negative for those without an image (`LlavaDataset.modality_lengths`).
        batch_size: samples of a micro batch.
        num_chunks: micro batches of a step: ranks times accumulation.
        tokens_per_image: visual tokens of an image.
        longest: tokens that a sample is cut to (`--model_max_length`).
        is_grouped: batches of one modality and like length.
        seed: of the order (`--data_seed`).
    """
    order: Iterable[int]
    if is_grouped:
        order = ModalityLengthSampler(lengths, batch_size, num_chunks, seed=seed)
    else:
        order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    places = list(order)
    batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]

    def tokens(batch: list[int]) -> float:
        return sum(_tokens(lengths[index], tokens_per_image, longest) for index in batch)

    return max(batches, key=tokens)


def _tokens(length: int, tokens_per_image: int, longest: int) -> float:
    """Estimate the merged tokens of a sample from its signed words."""
    return min(abs(length) * TOKENS_PER_WORD + (tokens_per_image if length > 0 else 0), longest)
