"""Convolutions over time as sums of matrix products, for a span of output steps.

A convolution is a product a tap, of the same steps shifted; a transposed one of twice as many taps
as its ratio is two products, whose columns are the phases. On activations that lie time-major and
fit the cache, these run near the limit of a processor, where a convolution routine first reorders
its input. Edges are reflected at the true ends of a sound alone.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from services.synth.melgan.generator import LEAK, ResidualBlock, Upsampling


@dataclass(frozen=True)
class Span:
    """Steps `start` to `stop` of a sequence of `length`."""

    start: int
    stop: int
    length: int

    @property
    def steps(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def samples(self, per_step: int) -> "Span":
        """The same time, in samples of which a step holds so many."""
        return Span(self.start * per_step, self.stop * per_step, self.length * per_step)

    def within(self, around: "Span") -> slice:
        """Where they lie in a tensor of the steps of `around`."""
        return slice(self.start - around.start, self.stop - around.start)


class Workspace:
    """Memory for activations, taken once and used by every chunk again."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape, its content undefined; it ends what had the name before."""
        count = 1
        for size in shape:
            count *= size
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < count:
            buffer = torch.empty(count, device=self._device, dtype=self._dtype)
            self._buffers[name] = buffer
        return buffer[:count].view(shape)


class Convolution:
    """A convolution with reflected edges; tensors are (steps, B, channels)."""

    def __init__(self, module: nn.Conv1d, dtype: torch.dtype) -> None:
        # (taps, in, out)
        self.weight = module.weight.detach().permute(2, 1, 0).to(dtype).contiguous()
        self.bias = cast(Tensor, module.bias).detach().to(dtype)
        self.dilation = module.dilation[0]
        self.reach = self.dilation * (module.kernel_size[0] // 2)

    def receptive_field(self, output: Span) -> Span:
        """The span of the input that an output span depends on."""
        start, stop = output.start - self.reach, output.stop + self.reach
        return Span(max(start, 0), min(stop, output.length), output.length)

    def reflected(self, x: Tensor, output: Span) -> Tensor:
        """The receptive field `x`, padded by reflection where it meets an end of the sound."""
        before = max(self.reach - output.start, 0)
        behind = max(output.stop + self.reach - output.length, 0)
        if not before and not behind:
            return x
        return torch.cat([x[1 : before + 1].flip(0), x, x[len(x) - 1 - behind : -1].flip(0)])

    def __call__(self, padded: Tensor, out: Tensor) -> Tensor:
        """(steps + 2 * reach, B, in) to `out`, (steps, B, out)."""
        rows, flat = out.shape[0] * out.shape[1], out.flatten(0, 1)
        shift = self.dilation * out.shape[1]
        taps = padded.flatten(0, 1)
        torch.addmm(self.bias, taps[:rows], self.weight[0], out=flat)
        for tap in range(1, len(self.weight)):
            flat.addmm_(taps[tap * shift : tap * shift + rows], self.weight[tap])
        return out

    def to_one_channel(self, padded: Tensor) -> Tensor:
        """(steps + 2 * reach, B, in) to (steps, B), for one channel of output and no dilation."""
        batch, taps = padded.shape[1], len(self.weight)
        rows = (len(padded) - 2 * self.reach) * batch
        products = self.weight[:, :, 0] @ padded.flatten(0, 1).T
        total = products[0, :rows] + self.bias
        for tap in range(1, taps):
            total += products[tap, tap * batch : tap * batch + rows]
        return total.view(-1, batch)


class Residual:
    """A residual block."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        self.dilated = Convolution(cast(nn.Conv1d, block.dilated), dtype)
        pointwise, shortcut = cast(nn.Conv1d, block.pointwise), cast(nn.Conv1d, block.shortcut)
        self.pointwise = pointwise.weight.detach()[..., 0].T.to(dtype).contiguous()
        self.shortcut = shortcut.weight.detach()[..., 0].T.to(dtype).contiguous()
        biases = cast(Tensor, pointwise.bias) + cast(Tensor, shortcut.bias)
        self.bias = biases.detach().to(dtype)

    def receptive_field(self, output: Span) -> Span:
        """The span of the input that an output span depends on."""
        return self.dilated.receptive_field(output)

    def __call__(self, x: Tensor, output: Span, space: Workspace, name: str) -> Tensor:
        """The receptive field (steps, B, C) to the output span (steps, B, C)."""
        activated = leaky_relu(x, space.take("activated", *x.shape))
        shape = (output.steps, *x.shape[1:])
        inner = self.dilated(self.dilated.reflected(activated, output), space.take("inner", *shape))
        leaky_relu(inner, inner)
        out = space.take(name, *shape)
        flat = out.flatten(0, 1)
        center = x[output.within(self.receptive_field(output))]
        torch.addmm(self.bias, center.flatten(0, 1), self.shortcut, out=flat)
        flat.addmm_(inner.flatten(0, 1), self.pointwise)
        return out


class Transposed:
    """The transposed convolution of an upsampling, and its excitation, if it has one.

    It has twice as many taps as its ratio: each input step adds to two blocks of output steps.
    """

    def __init__(self, upsampling: Upsampling, dtype: torch.dtype) -> None:
        module = cast(nn.ConvTranspose1d, upsampling.transposed)
        self.excited_by = upsampling.excited_by
        self.ratio = module.stride[0]
        self.padding = cast(int, module.padding[0])
        self.channels = module.out_channels
        # (in, out, taps) to (in, ratio * out), for the first and the second of them.
        early, late = module.weight.detach().to(dtype).tensor_split(2, dim=2)
        self.early = early.permute(0, 2, 1).flatten(1).contiguous()
        self.late = late.permute(0, 2, 1).flatten(1).contiguous()
        bias = cast(Tensor, module.bias).detach()
        if self.excited_by:
            excited = cast(nn.Conv1d, upsampling.excited)
            # (samples of a step, out)
            self.excited = excited.weight.detach()[..., 0].T.to(dtype).contiguous()
            bias = bias + cast(Tensor, excited.bias).detach()
        self.bias = bias.to(dtype).repeat(self.ratio)

    def receptive_field(self, output: Span) -> Span:
        """The span of the input that an output span depends on."""
        first, last = self._blocks(output)
        length = output.length // self.ratio
        return Span(max(first - 1, 0), min(last, length), length)

    def _blocks(self, output: Span) -> tuple[int, int]:
        """The blocks of `ratio` steps that hold the output span, before padding is cut off."""
        start, stop = output.start + self.padding, output.stop + self.padding
        return start // self.ratio, -(-stop // self.ratio)

    def __call__(self, x: Tensor, output: Span, space: Workspace, name: str) -> Tensor:
        """The receptive field (steps, B, in) to the span (steps, B, out), without excitation."""
        first, last = self._blocks(output)
        field, batch = self.receptive_field(output), x.shape[1]
        blocks = space.take(name, last - first, batch, self.ratio * self.channels)
        blocks.copy_(self.bias.expand_as(blocks))
        for weight, delay in ((self.early, 0), (self.late, 1)):
            begin, end = max(first - delay, field.start), min(last - delay, field.stop)
            steps = x[begin - field.start : end - field.start].flatten(0, 1)
            reached = blocks[begin + delay - first : end + delay - first].flatten(0, 1)
            reached.addmm_(steps, weight)
        phases = blocks.view(-1, batch, self.ratio, self.channels).transpose(1, 2).flatten(0, 1)
        offset = output.start + self.padding - first * self.ratio
        return phases.narrow(0, offset, output.steps)

    def excite(self, x: Tensor, wave: Tensor) -> None:
        """Adds the excitation of the same time, `wave` (B, samples), to `x` (steps, B, out)."""
        steps = wave.reshape(len(wave), len(x), self.excited_by).transpose(0, 1).flatten(0, 1)
        x.flatten(0, 1).addmm_(steps.to(x.dtype), self.excited)


def leaky_relu(x: Tensor, out: Tensor) -> Tensor:
    """MelGAN's activation of `x`, written to `out`, which may be `x`."""
    return cast(Tensor, torch.ops.aten.leaky_relu.out(x, LEAK, out=out))
