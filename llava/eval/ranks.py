"""The processes of one evaluation, as torchrun and accelerate start them."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch.distributed as dist

Item = TypeVar("Item")

_LONGEST_WAIT = timedelta(days=7)


class Ranks(NamedTuple):
    """Where this process stands: its number, how many there are, its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """Read what the launcher says; one process without a launcher."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, cls(), strict=True)))

    def join(self) -> None:
        """Connect to the other ranks, where there are any."""
        if self.world > 1:
            dist.init_process_group("gloo", timeout=_LONGEST_WAIT)

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this rank's share: every world-th item, nothing where there are more ranks than items."""
        return items[self.rank :: self.world]

    def wait(self) -> None:
        """Return once every rank is here."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Disconnect."""
        if self.world > 1:
            dist.destroy_process_group()
