"""UNAGAN's generator run for its mels alone, in little more memory than its widest activations.

The same layers in the same order as `Unagan.sing`, but convolutions go in blocks, recurrences
too, activations are changed in place, and none outlives its use. Group norms are over the whole
sound, so their statistics are those of all blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.synth.generation.threads import lone_threads
from services.synth.unagan.blocks import LEAKY_SLOPE, BodyBlock, RecurrentConvolution
from services.synth.unagan.generator import (
    Generator,
    HierarchicalGenerator,
    NonhierarchicalGenerator,
    Unagan,
)

BLOCK_STEPS = 4096
Checkpoint = Callable[[], None]


@torch.inference_mode()
def sing(
    unagan: Unagan, frames: int, seeds: Sequence[int], checkpoint: Checkpoint = lambda: None
) -> Tensor:
    """Log-mels (len(seeds), feat_dim, frames) of peak-normalised sound, one item a seed.

    They are those of `unagan.sing` but for the order of sums. `checkpoint` is called before every
    block of every layer and raises to stop.
    """
    noise = unagan.generator.draw(frames, seeds)
    device = unagan.mean.device
    states = [state.to(device) for state in noise.states]
    # Unless told so, cuDNN may choose by a race, and sums of another order differ in last bits.
    with (
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
        lone_threads(device) as pool,
    ):
        song = _Song(pool, checkpoint).of(unagan.generator, noise.z.to(device), states)
    mel: Tensor = song[..., :frames]
    return mel * unagan.std[:, None] + unagan.mean[:, None]


class _Song:
    """One pass; activations are (B, channels, steps)."""

    def __init__(self, pool: Executor, checkpoint: Checkpoint) -> None:
        self._pool = pool
        self._checkpoint = checkpoint

    def of(self, generator: Generator, z: Tensor, states: Sequence[Tensor]) -> Tensor:
        if isinstance(generator, HierarchicalGenerator):
            return self._in_steps(generator, z, states)
        if isinstance(generator, NonhierarchicalGenerator):
            return self._at_once(generator, z, states)
        raise TypeError(f"{type(generator).__name__} is no generator known here")

    def _in_steps(
        self, generator: HierarchicalGenerator, z: Tensor, states: Sequence[Tensor]
    ) -> Tensor:
        factors = generator.settings.z_scale_factors
        blocks = [cast(BodyBlock, block) for block in generator.blocks]
        heads = [cast(nn.Conv1d, head) for head in generator.heads]
        body = self._body(blocks[0], z, states[0])
        mel = self._convolved(heads[0], body)
        further = zip(factors, blocks[1:], heads[1:], states[1:], strict=True)
        for factor, block, head, state in further:
            self._checkpoint()
            body = functional.interpolate(body, scale_factor=factor, mode="nearest")
            mel = functional.interpolate(mel, scale_factor=factor, mode="nearest")
            body += self._body(block, body, state)
            mel += self._convolved(head, body)
        return mel

    def _at_once(
        self, generator: NonhierarchicalGenerator, z: Tensor, states: Sequence[Tensor]
    ) -> Tensor:
        x = self._normalised(generator.norm, self._convolved(generator.conv_in, z))
        for block, state in zip(generator.blocks, states, strict=True):
            x = self._recurrent(cast(RecurrentConvolution, block), x, state)
        return self._convolved(generator.head, x)

    def _body(self, block: BodyBlock, x: Tensor, state: Tensor) -> Tensor:
        x = self._normalised(block.norm, self._convolved(block.conv_in, x))
        return self._convolved(block.conv_out, self._recurrent(block.recurrent, x, state))

    def _recurrent(self, layer: RecurrentConvolution, x: Tensor, state: Tensor) -> Tensor:
        """The layer's output, in the memory of `x`."""
        both = torch.zeros_like(x)
        layer.gru.add_both_ways(
            x.permute(2, 0, 1),
            both.permute(2, 0, 1),
            state,
            pool=self._pool,
            checkpoint=self._checkpoint,
        )
        x += both
        x += self._normalised(layer.norm, self._convolved(layer.conv, both))
        return x

    def _convolved(self, layer: nn.Conv1d, x: Tensor) -> Tensor:
        """The convolution of the whole, with zeros at its edges, block by block."""
        steps, reach = x.shape[2], int(layer.padding[0])
        out = x.new_empty(len(x), layer.out_channels, steps)
        for start, stop in _blocks(steps):
            self._checkpoint()
            before, behind = min(reach, start), min(reach, steps - stop)
            padded = functional.pad(
                x[..., start - before : stop + behind], (reach - before, reach - behind)
            )
            out[..., start:stop] = functional.conv1d(
                padded, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups
            )
        return out

    def _normalised(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """Group norm and activation, in the memory of `x`."""
        groups = x.view(len(x), norm.num_groups, -1, x.shape[2])
        self._checkpoint()
        variance, mean = torch.var_mean(groups, dim=(2, 3), correction=0, keepdim=True)
        groups -= mean
        groups *= torch.rsqrt(variance + norm.eps)
        x *= norm.weight[:, None]
        x += norm.bias[:, None]
        return functional.leaky_relu_(x, LEAKY_SLOPE)


def _blocks(steps: int) -> Iterator[tuple[int, int]]:
    for start in range(0, steps, BLOCK_STEPS):
        yield start, min(start + BLOCK_STEPS, steps)
