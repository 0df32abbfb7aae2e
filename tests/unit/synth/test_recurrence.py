from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from services.errors import CancelledError
from services.synth.recurrence import BLOCK_STEPS, BidirectionalGRU


@pytest.mark.parametrize(
    ("width", "batch", "steps"),
    [
        (8, 1, 1),
        (8, 1, 2 * BLOCK_STEPS - 1),
        (8, 1, 2 * BLOCK_STEPS),
        (8, 3, 2 * BLOCK_STEPS + 1),
        (20, 1, 5 * BLOCK_STEPS - 1),
        (64, 1, 3 * BLOCK_STEPS + 1),
        (512, 1, 2 * BLOCK_STEPS + 17),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_recurrence_in_blocks_answers_as_in_one_pass(
    width: int, batch: int, steps: int, given: bool
) -> None:
    torch.manual_seed(steps)
    gru = BidirectionalGRU(width, width).requires_grad_(False)
    sound = torch.randn(steps, batch, width)
    state = torch.randn(2, batch, width) if given else None
    total = torch.zeros_like(sound)

    with ThreadPoolExecutor(2) as pool:
        gru.add_both_ways(sound, total, state, pool=pool)

    whole, _ = nn.GRU.forward(gru, sound.transpose(0, 1), state)
    forwards, backwards = whole.transpose(0, 1).chunk(2, dim=2)
    torch.testing.assert_close(total, forwards + backwards, atol=1e-6, rtol=0)


def test_it_asks_before_every_block() -> None:
    gru = BidirectionalGRU(4, 4).requires_grad_(False)
    sound = torch.randn(5 * BLOCK_STEPS, 1, 4)
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise CancelledError("the caller has gone")

    with ThreadPoolExecutor(2) as pool, pytest.raises(CancelledError):
        gru.add_both_ways(sound, sound.clone(), pool=pool, checkpoint=checkpoint)
    assert asked == 4
