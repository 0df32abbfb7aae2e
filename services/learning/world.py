"""The processes that train one model together, a device each, as `torchrun` starts them.

Data parallel: every process holds the same networks and computes its share of each batch, and what
they learned is averaged before it is used (Goyal et al., 2017, arXiv:1706.02677).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as processes

from services.errors import ConfigurationError, SettingsMismatchError

T = TypeVar("T")

BACKEND = "cpu:gloo,cuda:nccl"
"""Tensors on the CPU, such as what `wait` sends, never make a GPU wait."""
LONGEST_WAIT = timedelta(hours=1)
"""While the first process validates and stores, the others wait in their next message."""
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """One process of `size`, and what it does together with the others.

    Every method that averages or agrees is called by all processes, in the same order. Alone, which
    is the default, all of them give back what they were given.
    """

    rank: int = 0
    """Which of the processes this is; 0 alone stores and logs."""
    size: int = 1
    """How many there are, on all machines."""
    local_rank: int = 0
    """Which of those on this machine this is: the number of its GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this process stores and logs."""
        return self.rank == 0

    def device(self, kind: str) -> str:
        """`cuda` is this process's own GPU among several; any other name is that device."""
        return f"cuda:{self.local_rank}" if kind == "cuda" and self.size > 1 else kind

    def share(self, batch_size: int) -> range:
        """Which items of a batch are this process's.

        Raises SettingsMismatchError unless all processes get as many: only then is the average of
        their gradients that of the batch.
        """
        if batch_size % self.size:
            raise SettingsMismatchError(
                f"a batch of {batch_size} does not divide among {self.size} processes: choose a "
                f"multiple of {self.size}",
                culprit="batch_size",
            )
        count = batch_size // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def average_gradients(self, module: nn.Module) -> None:
        """Each gradient of `module` becomes the mean over all processes, in place.

        One message a network, after its backward pass. DistributedDataParallel would send while the
        pass is on its way, but it wants one forward for one backward: a GAN asks its discriminator
        three times a step, and the generator's pass through it would send gradients that nobody
        uses. The networks are small enough for the message to cost little.
        """
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        means = self._mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(means, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def average(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over all processes of 0-d tensors on one device, which nobody waits for."""
        if self.size == 1 or not values:
            return dict(values)
        means = self._mean(torch.stack([value.detach().float() for value in values.values()]))
        return dict(zip(values, means.unbind(), strict=True))

    def from_first(self, value: T) -> T:
        """What the first process gives, in all processes; plain values, such as a model's id."""
        if self.size == 1:
            return value
        values = [value]
        processes.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def copy_from_first(self, module: nn.Module) -> None:
        """Weights and buffers of `module` become those of the first process, in place."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                processes.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.size > 1:
            processes.all_reduce(torch.zeros(()))

    def _mean(self, values: Tensor) -> Tensor:
        # Gloo knows no mean.
        processes.all_reduce(values, processes.ReduceOp.SUM)
        return values.div_(self.size)


ALONE = World()


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world that `torchrun` describes in the environment, or alone; left at the end.

    `device` is what is asked for: with "cpu", GPUs are left alone. Raises ConfigurationError if the
    environment describes a world in part.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    for name in VARIABLES:
        if name not in os.environ:
            raise ConfigurationError(
                f"{name} is not set beside WORLD_SIZE: start several processes by torchrun",
                culprit=name,
            )
    world = World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    processes.init_process_group(BACKEND if on_gpu else "gloo", timeout=LONGEST_WAIT)
    try:
        yield world
    finally:
        processes.destroy_process_group()
