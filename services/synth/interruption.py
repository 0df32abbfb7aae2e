"""A network's pass, stopped on its way: eager PyTorch goes module by module, and asks before each.

A recurrence over a long sound is one module of seconds on a CPU, so it asks between blocks, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

# Steps of one direction at a width of 512: a tenth of a second on one core.
BLOCK_STEPS = 1024
# has_biases, num_layers, dropout, train, bidirectional, batch_first
_ONE_WAY_BATCH_FIRST = (True, 1, 0.0, False, False, True)


@contextmanager
def interruptible(network: nn.Module, checkpoint: Callable[[], None]) -> Iterator[None]:
    """Inside, `checkpoint` is called before each module of `network`; what it raises ends the pass.

    For one thread at a time. The answers are the same, and the device is never waited for.
    """
    hooks = [
        module.register_forward_pre_hook(lambda *_: checkpoint()) for module in network.modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class BidirectionalGRU(nn.GRU):
    """One bidirectional layer, batch first, whose long passes on a CPU go block by block.

    The answers are those of torch.nn.GRU, bit for bit: no block is so short that its matrix
    product would be computed by another routine.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)
        # Does nothing, but `interruptible` asks before it as before any module.
        self.pause = nn.Identity()

    @override
    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(B, T, input_size) and (2, B, hidden_size) to (B, T, 2 * hidden_size) and last states."""
        short = input.shape[1] < 2 * BLOCK_STEPS
        if short or input.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(input, hx)
        if hx is None:
            hx = input.new_zeros(2, len(input), self.hidden_size)
        forwards, last = self._one_way(input, hx[:1], self._flat_weights[:4])
        backwards, first = self._one_way(input.flip(1), hx[1:], self._flat_weights[4:])
        return torch.cat((forwards, backwards.flip(1)), dim=2), torch.cat((last, first))

    def _one_way(
        self, steps: Tensor, state: Tensor, weights: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        outputs = []
        # Of BLOCK_STEPS to twice as many: a remainder by itself would be too short.
        for block in steps.tensor_split(steps.shape[1] // BLOCK_STEPS, dim=1):
            self.pause(block)
            output, state = torch._VF.gru(
                block.contiguous(), state, cast(list[Tensor], weights), *_ONE_WAY_BATCH_FIRST
            )
            outputs.append(output)
        return torch.cat(outputs, dim=1), state
