"""How precisely training computes (Micikevicius et al., 2018, arXiv:1710.03740).

Weights, their averages, optimizers and losses stay in float32 whatever is chosen here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, cast, get_args

import torch
from torch import nn

from services.learning.bounds import refuse_unknown

Compute = Literal["float32", "bf16", "fp16"]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """Number formats of the networks' passes; the defaults are the published ones.

    Raises InvalidInputError for a format that there is not.
    """

    compute: Compute = "float32"
    """float32, bf16, or fp16 with its losses scaled so that small gradients do not vanish."""
    tf32: bool = False
    """Whether a GPU may round what float32 products multiply to TF32's ten bits."""
    compile: bool = False
    """Whether torch.compile fuses the networks' passes; the first steps take a minute longer."""

    def __post_init__(self) -> None:
        refuse_unknown("compute", self.compute, get_args(Compute))

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context for forward passes; what they return is to be made float32 for the losses."""
        half = HALVES.get(self.compute)
        return torch.autocast(device.type, dtype=half, enabled=half is not None)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """What scales losses for fp16; for the other formats it does nothing."""
        return torch.amp.GradScaler(device.type, enabled=self.compute == "fp16")

    def compiled(self, network: M) -> M:
        """What calls `network`, compiled if that is chosen; the parameters are the same."""
        if not self.compile:
            return network
        return cast(Callable[[M], M], torch.compile)(network)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Inside, GPUs multiply float32 as chosen, and cuDNN tries which of its ways is fastest.

        Steps have one shape, so the trial comes once. Does nothing on a CPU.
        """
        matmul = torch.backends.cuda.matmul
        before = matmul.allow_tf32
        matmul.allow_tf32 = self.tf32
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=True, deterministic=False, allow_tf32=self.tf32
            ):
                yield
        finally:
            matmul.allow_tf32 = before
