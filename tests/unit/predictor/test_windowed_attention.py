"""Attention to the last frames: how far it reaches, and keys that stay valid as it slides."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from services.predictor.networks.windowed_attention import WindowedAttention, rotations

WIDTH, HEADS, REACH, FRAMES = 12, 2, 5, 17


def attention() -> WindowedAttention:
    torch.manual_seed(1)
    return WindowedAttention(WIDTH, HEADS, REACH).double().eval()


def sound(frames: int = FRAMES) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, frames, WIDTH, generator=generator, dtype=torch.float64)


def attended(frames: Tensor, first: int = 0) -> Tensor:
    count = frames.shape[1]
    rotary = rotations(first, count, WIDTH // HEADS, frames)
    told: Tensor = attention()(frames, rotary)
    return told


def test_a_frame_is_told_by_itself_and_the_frames_just_before_it() -> None:
    plain = attended(sound())
    changed = sound()
    changed[:, 6] += 1
    moved = (attended(changed) - plain).abs().amax(dim=(0, 2)) > 1e-9
    assert moved.nonzero().flatten().tolist() == list(range(6, 6 + REACH))


@pytest.mark.parametrize("frames", [1, REACH - 1, REACH, REACH + 1, 3 * REACH, FRAMES])
def test_blocks_of_frames_attend_as_a_masked_whole_does(frames: int) -> None:
    model, heard = attention(), sound(frames)
    queries, keys_values = model._heads(heard, rotations(0, frames, WIDTH // HEADS, heard))
    near = torch.ones(frames, frames, dtype=torch.bool).tril().triu(1 - REACH)
    keys, values = keys_values
    whole = scaled_dot_product_attention(queries, keys, values, attn_mask=near)
    torch.testing.assert_close(attended(heard), model._joined(whole))


def test_only_distances_between_frames_matter() -> None:
    torch.testing.assert_close(attended(sound()), attended(sound(), first=1234))


def test_the_order_of_the_frames_matters() -> None:
    swapped = sound()[:, [0, 1, 3, 2, *range(4, FRAMES)]]
    assert (attended(swapped)[:, 4] - attended(sound())[:, 4]).abs().max() > 1e-3


@pytest.mark.parametrize("at_once", [1, 3, REACH, REACH + 1, FRAMES - 1])
def test_a_frame_at_a_time_after_any_beginning_is_as_all_at_once(at_once: int) -> None:
    model, frames = attention(), sound()
    rotary = rotations(0, FRAMES, WIDTH // HEADS, frames)
    ring = model.ring(3, frames)
    told = [model(frames[:, :at_once], rotary[:, :at_once], ring)]
    told += [
        model.step(frames[:, i : i + 1], rotary[:, i : i + 1], ring) for i in range(at_once, FRAMES)
    ]
    torch.testing.assert_close(torch.cat(told, dim=1), attended(frames))


def test_late_positions_are_as_exact_as_early_ones() -> None:
    frames = sound().float()
    rotary = rotations(100_000, FRAMES, WIDTH // HEADS, frames)
    exact = rotations(100_000, FRAMES, WIDTH // HEADS, frames.double())
    torch.testing.assert_close(rotary.double(), exact, atol=1e-7, rtol=0)
