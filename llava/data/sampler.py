"""An order of samples in which the ranks of a step see one modality and about equally long samples.

A megabatch holds the samples of one optimizer step: batch_size of each of `world_size` ranks (times gradient
accumulation steps). Within it, chunk k is what rank k gets.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_EPOCH_STRIDE = 1_000_003
"""Keeps the seeds of neighbouring runs and epochs apart."""


class ModalityLengthSampler(Sampler[int]):
    """Yield every index once, in megabatches of one modality whose chunks have balanced lengths.

    The order depends on (seed, epoch) alone, not on any global state, so a resumed run continues the same
    order. What is left of each modality after its full megabatches comes last, images before text.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, world_size: int, *, seed: int = 0) -> None:
        """Take signed lengths: positive with an image, zero or negative for text only."""
        if not lengths:
            raise ValueError("lengths is empty: there is nothing to sample from")
        if batch_size < 1 or world_size < 1:
            raise ValueError(
                f"batch_size and world_size must be at least 1, got {batch_size} and {world_size}"
            )
        self.lengths = lengths
        self.batch_size = batch_size
        self.world_size = world_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + _EPOCH_STRIDE * self.epoch)
        full: list[list[int]] = []
        rest: list[int] = []
        for has_image in (True, False):
            indices = [index for index, length in enumerate(self.lengths) if (length > 0) is has_image]
            for megabatch in self._megabatches(indices, generator):
                if len(megabatch) == self.batch_size * self.world_size:
                    full.append(megabatch)
                else:
                    rest += megabatch
        for position in torch.randperm(len(full), generator=generator).tolist():
            yield from full[position]
        yield from rest

    def _megabatches(self, indices: list[int], generator: torch.Generator) -> list[list[int]]:
        """Shuffle samples of one modality and cut them into balanced megabatches; the last may be short."""
        shuffled = [
            indices[position] for position in torch.randperm(len(indices), generator=generator).tolist()
        ]
        size = self.batch_size * self.world_size
        sizes = [abs(length) for length in self.lengths]
        megabatches: list[list[int]] = []
        for start in range(0, len(shuffled), size):
            longest_first = sorted(shuffled[start : start + size], key=lambda i: sizes[i], reverse=True)
            chunks = split_to_even_chunks(longest_first, sizes, self.world_size)
            megabatches.append([index for chunk in chunks for index in chunk])
        return megabatches


def split_to_even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Deal indices to chunks of one size and about one total length, in the order given.

    Each index goes to the chunk with the smallest total that still has room; if the chunks can't be of one
    size, the indices are dealt in turn: [7, 3, 5, 1, 2] to two chunks -> [7, 5, 2], [3, 1].
    """
    if len(indices) % num_chunks:
        return [list(indices[start::num_chunks]) for start in range(num_chunks)]
    room = len(indices) // num_chunks
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    totals = [0] * num_chunks
    for index in indices:
        open_chunks = [chunk for chunk in range(num_chunks) if len(chunks[chunk]) < room]
        chosen = min(open_chunks, key=lambda chunk: totals[chunk])
        chunks[chosen].append(index)
        totals[chosen] += lengths[index]
    return chunks
