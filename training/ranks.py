# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, as torchrun starts them.

Everything comes from the environment: RANK, WORLD_SIZE, LOCAL_RANK and the address of the first.
Without them there is one process, and nothing here does anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from training.sampling import Shard

PATIENCE: Final = timedelta(hours=2)
"""How long the others wait for one; the first evaluates alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among all."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        return Shard(rank=self.rank, world=self.world)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a small vector over all processes."""
        summed = values.clone()
        if self.world > 1:
            distributed.all_reduce(summed)
        return summed

    def agree(self, value: bool) -> bool:  # noqa: FBT001 - the value is what it is about
        """Return what the first process says."""
        if self.world == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said)
        return said[0]

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Have gradients averaged over the processes; all of them start with the first's values."""
        if self.world == 1:
            return module
        devices = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Train together with the processes that torchrun has started beside this one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    backend = "nccl" if device_type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(
            rank=distributed.get_rank(),
            world=world,
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        )
    finally:
        distributed.destroy_process_group()


def restarted() -> bool:
    """Say whether torchrun has started this process again after another one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
