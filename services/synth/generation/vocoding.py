"""MelGAN's generator run for its sound alone: chunk by chunk, in memory that does not grow.

Each chunk is computed from exactly its receptive field, so chunks joined are the output of
`Generator.forward` but for the order of its sums. A recurrence runs first, over the whole sound.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import cast

import torch
from torch import Tensor

from services.errors import InvalidInputError
from services.synth.generation.capture import CapturedChunk
from services.synth.generation.convolution import (
    Convolution,
    Residual,
    Span,
    Transposed,
    Workspace,
    leaky_relu,
)
from services.synth.generation.recent import Recent
from services.synth.generation.threads import lone_threads
from services.synth.melgan.generator import Generator, Recurrence, ResidualBlock, Upsampling

# Frames computed at once. Other numbers give other last bits, so no setting changes them, and a
# request gives the same bytes. On a CPU, activations of the published size fit the cache.
CPU_CHUNK_FRAMES = 64
GPU_CHUNK_FRAMES = 1024
# CUDA graphs, each with the activations of a chunk: one for each number of items in a batch.
GRAPHS_KEPT = 2

Checkpoint = Callable[[], None]


class Vocoder:
    """A MelGAN generator made ready to sound; for one caller at a time.

    Its weights are copied in the form of `dtype`, in which all but a recurrence, and what comes
    before one, is computed: bfloat16 is for a GPU. With `graphs`, each chunk that has the shape
    of one before it is replayed as a CUDA graph.
    """

    def __init__(
        self, generator: Generator, *, dtype: torch.dtype = torch.float32, graphs: bool = False
    ) -> None:
        self.settings = generator.settings
        self.device = next(generator.parameters()).device
        self._generator = generator
        self._dtype = dtype
        on_cpu = self.device.type == "cpu"
        self._chunk_frames = CPU_CHUNK_FRAMES if on_cpu else GPU_CHUNK_FRAMES
        self._recurrence = (
            generator.recurrence if isinstance(generator.recurrence, Recurrence) else None
        )
        with torch.no_grad():
            self._first = Convolution(generator.first, torch.float32 if self._recurrence else dtype)
            self._layers: list[Transposed | Residual] = []
            for module in generator.upsamplings:
                upsampling = cast(Upsampling, module)
                self._layers.append(Transposed(upsampling, dtype))
                self._layers += [
                    Residual(cast(ResidualBlock, block), dtype) for block in upsampling.residuals
                ]
            self._last = Convolution(generator.last, dtype)
        self._captured: Recent[CapturedChunk] | None = Recent(GRAPHS_KEPT) if graphs else None

    @torch.inference_mode()
    def chunks(
        self,
        mel: Tensor,
        seeds: Sequence[int] | None = None,
        checkpoint: Checkpoint = lambda: None,
    ) -> Iterator[Tensor]:
        """The waveform of `mel` (B, n_mels, frames), in order: each (B, samples) float32.

        The excitation of item i, if any, comes from `seeds[i]`, 0 if none are given. `checkpoint`
        is called before each chunk and raises to stop. Raises InvalidInputError as
        `Generator.forward` does.
        """
        bands, frames = self.settings.n_mels, mel.shape[-1]
        if mel.ndim != 3 or mel.shape[1] != bands or frames < self.settings.shortest_frames:
            raise InvalidInputError(
                f"MelGAN: mel is {tuple(mel.shape)}, not (batch, {bands}, frames) of at least "
                f"{self.settings.shortest_frames} frames"
            )
        checkpoint()
        excitation = self._generator.excite(mel, seeds or [0] * len(mel), checkpoint)
        # As it came, its samples lie one after the other.
        wave = None if excitation is None else excitation.mT.flatten(1).to(self.device)
        source = mel.permute(2, 0, 1).contiguous()
        checkpoint()
        with lone_threads(self.device) as pool:
            if self._recurrence:
                source = self._recurrent(source, self._recurrence, pool, checkpoint)
            yield from self._in_order(source.to(self._dtype), wave, pool, checkpoint)

    def _recurrent(
        self, source: Tensor, recurrence: Recurrence, pool: Executor, checkpoint: Checkpoint
    ) -> Tensor:
        """First convolution and recurrence over the whole of `source`: (frames, B, width)."""
        frames, batch, _ = source.shape
        x = source.new_empty(frames, batch, self._first.weight.shape[2])
        for start in range(0, frames, self._chunk_frames):
            checkpoint()
            output = Span(start, min(start + self._chunk_frames, frames), frames)
            field = self._first.receptive_field(output)
            self._first_convolution(
                source[field.start : field.stop], output, x[output.start : output.stop]
            )
        total = x.clone()
        recurrence.rec.add_both_ways(x, total, pool=pool, checkpoint=checkpoint)
        return total

    def _in_order(
        self, source: Tensor, wave: Tensor | None, pool: Executor, checkpoint: Checkpoint
    ) -> Iterator[Tensor]:
        """The chunks of `source`, (frames, B, channels); each thread is at work on one."""
        frames, hop = len(source), self.settings.mel.hop_length
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        spaces: SimpleQueue[Workspace] = SimpleQueue()
        for _ in range(threads):
            spaces.put(Workspace(self.device, self._dtype))

        def compute(output: Span) -> Tensor:
            space = spaces.get()
            try:
                return self._chunk(source, wave, output, space)
            finally:
                spaces.put(space)

        begun: deque[Future[Tensor]] = deque()
        try:
            for start in range(0, frames, self._chunk_frames):
                checkpoint()
                stop = min(start + self._chunk_frames, frames)
                begun.append(pool.submit(compute, Span(start * hop, stop * hop, frames * hop)))
                # One more than are at work, so that none waits for whoever takes the samples.
                if len(begun) > threads:
                    yield begun.popleft().result()
            while begun:
                checkpoint()
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

    @torch.inference_mode()
    def _chunk(self, source: Tensor, wave: Tensor | None, output: Span, space: Workspace) -> Tensor:
        """The samples of `output`, (B, samples) float32, from the whole `source` and `wave`."""
        spans, hop = self._spans(output), self.settings.mel.hop_length
        frames = spans[0]
        inputs = [source[frames.start : frames.stop]]
        if wave is not None:
            inputs.append(wave[:, frames.start * hop : frames.stop * hop])
        inside = frames.start > 0 and frames.stop < len(source)
        if self._captured is None or not inside:
            return self._compute(spans, space, *inputs)
        # Chunks begin at multiples of one number: those of one shape lie alike in their inputs.
        shape = (output.steps, *inputs[0].shape)

        def capture() -> CapturedChunk:
            own = Workspace(self.device, self._dtype)
            return CapturedChunk(partial(self._compute, spans, own), *inputs)

        return self._captured.get(shape, capture)(*inputs)

    def _spans(self, output: Span) -> list[Span]:
        """The receptive field in the source, then the output span of each layer, last `output`."""
        spans = [output, self._last.receptive_field(output)]
        for layer in reversed(self._layers):
            spans.append(layer.receptive_field(spans[-1]))
        if not self._recurrence:
            spans.append(self._first.receptive_field(spans[-1]))
        return spans[::-1]

    def _compute(
        self, spans: list[Span], space: Workspace, x: Tensor, wave: Tensor | None = None
    ) -> Tensor:
        """The samples of `spans[-1]`, (B, samples) float32, from the frames of `spans[0]`.

        `x` (frames, B, channels) are these frames, `wave` (B, samples) is their excitation.
        """
        hop = self.settings.mel.hop_length
        frames, outputs = spans[0], spans[1:]
        if not self._recurrence:
            shape = (outputs[0].steps, x.shape[1], self._first.weight.shape[2])
            x = self._first_convolution(x, outputs.pop(0), space.take("first", *shape))
        for index, (layer, span) in enumerate(zip(self._layers, outputs, strict=False)):
            # Two in turn: a layer's input must outlive its output.
            x = layer(x, span, space, f"layer {index % 2}")
            if isinstance(layer, Transposed) and wave is not None:
                layer.excite(x, wave[:, span.samples(layer.excited_by).within(frames.samples(hop))])
            if index + 1 == len(self._layers) or isinstance(self._layers[index + 1], Transposed):
                leaky_relu(x, x)
        sound = self._last.to_one_channel(self._last.reflected(x, spans[-1])).float().T
        if wave is not None:
            sound = sound + wave[:, spans[-1].within(frames.samples(hop))]
        return torch.tanh(sound)

    def _first_convolution(self, x: Tensor, output: Span, out: Tensor) -> Tensor:
        """The first convolution, activated, of its receptive field `x`, written to `out`."""
        return leaky_relu(self._first(self._first.reflected(x, output), out), out)
