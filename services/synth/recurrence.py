"""A bidirectional recurrence over a long sound, in blocks: asked to stop between them.

A pass over ten minutes takes many seconds, and torch's own keeps both directions' answers and a
reversed copy of its input for all of it. Here two blocks are at work at a time, one a direction.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import cast

import torch
from torch import Tensor, nn

# Steps of one direction at a width of 512: a tenth of a second on one core.
BLOCK_STEPS = 1024
# has_biases, num_layers, dropout, train, bidirectional, batch_first
_ONE_WAY_TIME_FIRST = (True, 1, 0.0, False, False, False)


class BidirectionalGRU(nn.GRU):
    """One bidirectional layer, batch first."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)

    def add_both_ways(
        self,
        x: Tensor,
        total: Tensor,
        states: Tensor | None = None,
        *,
        pool: Executor,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        """Adds the answers of both directions over `x` to `total`; both (steps, B, width) float32.

        `states` are the first ones, (2, B, width), zeros if none are given. The answers are those
        of `forward`, bit for bit on a CPU: no block is so short that its matrix product would be
        computed by another routine. `checkpoint` is called between blocks and raises to stop;
        `pool` computes. No gradient is kept.
        """
        if states is None:
            states = x.new_zeros(2, x.shape[1], self.hidden_size)
        forwards, backwards = states[:1], states[1:]
        # Of BLOCK_STEPS to twice as many: a remainder by itself would be too short.
        count = max(1, len(x) // BLOCK_STEPS)
        inputs, totals = x.tensor_split(count), total.tensor_split(count)
        for block in range(count):
            checkpoint()
            forth = pool.submit(
                self._one_way, inputs[block].contiguous(), forwards, self._flat_weights[:4]
            )
            back = pool.submit(
                self._one_way, inputs[-1 - block].flip(0), backwards, self._flat_weights[4:]
            )
            (ahead, forwards), (behind, backwards) = forth.result(), back.result()
            totals[block].add_(ahead)
            totals[-1 - block].add_(behind.flip(0))

    @staticmethod
    @torch.inference_mode()
    def _one_way(x: Tensor, state: Tensor, weights: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        return torch._VF.gru(x, state, cast(list[Tensor], weights), *_ONE_WAY_TIME_FIRST)
