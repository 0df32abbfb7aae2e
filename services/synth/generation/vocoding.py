"""MelGAN's generator run for its sound alone: chunk by chunk, in memory that does not grow.

Each chunk is computed from exactly the frames that it hears, so chunks joined are the answer of
`Generator.forward` but for the order of its sums. A recurrence hears the whole sound, and comes
first.
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
from services.synth.generation.threads import lone_threads
from services.synth.melgan.generator import Generator, Recurrence, ResidualBlock, Upsampling

# Frames computed at once. Other numbers give other last bits, so no setting changes them, and a
# request gives the same bytes. On a CPU, activations of the published size fit the cache.
CPU_CHUNK_FRAMES = 64
GPU_CHUNK_FRAMES = 1024

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
        self._captured: dict[tuple[int, ...], CapturedChunk] | None = {} if graphs else None

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
                source = self._remembered(source, self._recurrence, pool, checkpoint)
            yield from self._in_order(source.to(self._dtype), wave, pool, checkpoint)

    def _remembered(
        self, source: Tensor, recurrence: Recurrence, pool: Executor, checkpoint: Checkpoint
    ) -> Tensor:
        """What the recurrence makes of the whole (frames, B, channels), as wide as it is."""
        frames, batch, _ = source.shape
        x = source.new_empty(frames, batch, self._first.weight.shape[2])
        for start in range(0, frames, self._chunk_frames):
            checkpoint()
            wanted = Span(start, min(start + self._chunk_frames, frames), frames)
            self._opened(source, wanted, x[wanted.start : wanted.stop])
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

        def compute(wanted: Span) -> Tensor:
            space = spaces.get()
            try:
                return self._chunk(source, wave, wanted, space)
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
    def _chunk(self, source: Tensor, wave: Tensor | None, wanted: Span, space: Workspace) -> Tensor:
        """The wanted samples (B, samples) float32 of the whole `source` and its excitation."""
        spans, hop = self._spans(wanted), self.settings.mel.hop_length
        frames = spans[0]
        heard = [source[frames.start : frames.stop]]
        if wave is not None:
            heard.append(wave[:, frames.start * hop : frames.stop * hop])
        inside = frames.start > 0 and frames.stop < len(source)
        if self._captured is None or not inside:
            return self._sounding(spans, space, *heard)
        # Chunks begin at multiples of one number: those of one shape lie alike in what they hear.
        shape = (wanted.steps, *heard[0].shape)
        if shape not in self._captured:
            own = Workspace(self.device, self._dtype)
            self._captured[shape] = CapturedChunk(partial(self._sounding, spans, own), *heard)
        return self._captured[shape](*heard)

    def _spans(self, wanted: Span) -> list[Span]:
        """What is heard of the source, then what each layer answers, then what is wanted."""
        spans = [wanted, self._last.heard(wanted)]
        for layer in reversed(self._layers):
            spans.append(layer.heard(spans[-1]))
        if not self._recurrence:
            spans.append(self._first.heard(spans[-1]))
        return spans[::-1]

    def _sounding(
        self, spans: list[Span], space: Workspace, x: Tensor, wave: Tensor | None = None
    ) -> Tensor:
        """What `spans[-1]` wants, (B, samples) float32, of what `spans[0]` hears.

        `x` is (frames, B, channels), `wave` (B, samples) the excitation of these frames.
        """
        hop = self.settings.mel.hop_length
        frames, wanted = spans[0], spans[1:]
        if not self._recurrence:
            shape = (wanted[0].steps, x.shape[1], self._first.weight.shape[2])
            x = self._opened(x, wanted.pop(0), space.take("opened", *shape), heard=True)
        for index, (layer, span) in enumerate(zip(self._layers, wanted, strict=False)):
            # Two in turn: what a layer hears must outlive what it answers.
            x = layer(x, span, space, f"answer {index % 2}")
            if isinstance(layer, Transposed) and wave is not None:
                layer.excite(x, wave[:, span.samples(layer.excited_by).within(frames.samples(hop))])
            if index + 1 == len(self._layers) or isinstance(self._layers[index + 1], Transposed):
                leaky_relu(x, x)
        sound = self._last.to_one_channel(self._last.reflected(x, spans[-1])).float().T
        if wave is not None:
            sound = sound + wave[:, spans[-1].within(frames.samples(hop))]
        return torch.tanh(sound)

    def _opened(self, x: Tensor, wanted: Span, out: Tensor, *, heard: bool = False) -> Tensor:
        """The first convolution, activated, of the whole `x`, or of what it hears of it."""
        if not heard:
            around = self._first.heard(wanted)
            x = x[around.start : around.stop]
        return leaky_relu(self._first(self._first.reflected(x, wanted), out), out)
