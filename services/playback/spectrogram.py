"""A picture of a piece: level by time and by frequency, octaves evenly spaced as they are heard.

Drawn by matplotlib's Agg canvas through its objects alone (no pyplot), so that nothing is shared
between threads. Sound is taken in block by block, and the picture's size does not grow with it.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

FFT_SAMPLES = 4096
HOP_SAMPLES = 512
MAX_COLUMNS = 1400
BANDS = 420
LOWEST_HERTZ = 30.0
RANGE_DECIBELS = 80.0
_SILENCE = 1e-12
_TICKS_HERTZ = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


class Spectrogram:
    """Takes a piece in by blocks of (frames, channels), then draws it.

    A column shows the mean power of the windows (Hann, centred, mean of the channels) that fall
    into it; a band the strongest of its bins.
    """

    def __init__(self, sample_rate_hertz: int, sample_count: int) -> None:
        self._rate = sample_rate_hertz
        self._duration = sample_count / sample_rate_hertz
        # Centred windows: zeros stand before the beginning and, in png, beyond the end.
        self._pending = np.zeros(FFT_SAMPLES // 2, np.float32)
        self._window_count = 1 + sample_count // HOP_SAMPLES
        self._windows_done = 0
        columns = min(self._window_count, MAX_COLUMNS)
        self._power = np.zeros((BANDS, columns))
        self._windows_in = np.zeros(columns)
        self._hann = np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)
        nyquist = sample_rate_hertz / 2
        self._edges = np.geomspace(min(LOWEST_HERTZ, nyquist / 8), nyquist, BANDS + 1)

    def add(self, block: NDArray[np.float32]) -> None:
        """Takes in the next (frames, channels) of the piece."""
        self._pending = np.concatenate((self._pending, block.mean(axis=1, dtype=np.float32)))
        count = 1 + (len(self._pending) - FFT_SAMPLES) // HOP_SAMPLES
        count = min(count, self._window_count - self._windows_done)
        if count <= 0:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, FFT_SAMPLES)
        windows = windows[::HOP_SAMPLES][:count]
        power = np.abs(np.fft.rfft(windows * self._hann, axis=1)) ** 2
        numbers = np.arange(self._windows_done, self._windows_done + count)
        columns = numbers * self._power.shape[1] // self._window_count
        np.add.at(self._power.T, columns, self._in_bands(power))
        np.add.at(self._windows_in, columns, 1)
        self._windows_done += count
        self._pending = self._pending[count * HOP_SAMPLES :]

    def png(self) -> bytes:
        """Draws what was taken in; the same sound gives the same bytes."""
        self.add(np.zeros((FFT_SAMPLES, 1), np.float32))
        power = self._power / np.maximum(self._windows_in, 1)
        loudest = power.max()
        decibels = 10 * np.log10(np.maximum(power, _SILENCE) / max(loudest, _SILENCE))
        if loudest <= _SILENCE:
            decibels -= RANGE_DECIBELS
        return self._drawn(decibels)

    def _in_bands(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        """(windows, bins) → (windows, bands), interpolated where a band is narrower than a bin."""
        edges = self._edges * FFT_SAMPLES / self._rate
        middle = (edges[:-1] + edges[1:]) / 2
        below = np.minimum(middle.astype(int), power.shape[1] - 2)
        share = (middle - below).astype(np.float32)
        bands: NDArray[np.float32] = power[:, below] * (1 - share) + power[:, below + 1] * share
        first = np.ceil(edges[:-1]).astype(int)
        wide = np.flatnonzero(first <= np.floor(edges[1:]))
        bands[:, wide] = np.maximum.reduceat(power, first[wide], axis=1)
        return bands

    def _drawn(self, decibels: NDArray[Any]) -> bytes:
        # Here, since matplotlib takes a second to import, and only renders need it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        figure = Figure(figsize=(12, 5), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        bottom, top = np.log2(self._edges[[0, -1]])
        image = axes.imshow(
            decibels,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=-RANGE_DECIBELS,
            vmax=0,
            extent=(0, self._duration, bottom, top),
        )
        ticks = [hertz for hertz in _TICKS_HERTZ if self._edges[0] < hertz <= self._edges[-1]]
        axes.set_yticks(np.log2(ticks), [f"{hertz:,}".replace(",", " ") for hertz in ticks])
        axes.set_xlabel("Time (s)")
        axes.set_ylabel("Frequency (Hz)")
        figure.colorbar(image, ax=axes, label="Level (dB)", pad=0.01, fraction=0.03)
        target = io.BytesIO()
        # No Software entry either: it would change with matplotlib's version alone.
        figure.savefig(target, format="png", metadata={"Software": None})
        return target.getvalue()
