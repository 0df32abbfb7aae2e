"""The log-mels that UNAGAN learns, with each clip's peak at 1, made once and kept.

A long clip is transformed in pieces, so that memory does not grow with it. Pieces and sums have a
fixed order: what comes from a cache equals what is made without one, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.learning.array_cache import Append, ArrayCache, Facts
from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings, MelSpectrogram

# Raised when the same clip and settings make other mels.
ALGORITHM = 1
# 48 seconds of 44.1 kHz: 34 MB of spectrum.
PIECE_FRAMES = 8192
# Clips at once: torch's own threads leave processors idle here, and each takes some 200 MB.
WORKERS = 4


@dataclass(frozen=True, eq=False)
class PreparedMel:
    """What UNAGAN needs of one clip.

    `mel` is (n_mels, frames) float32, read-only, and may lie in a file, where each frame's bands
    are together: take crops of it, and copies of those. `mean` and `variance` are (n_mels,)
    float64, of each band over the clip.
    """

    mel: NDArray[np.float32]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def prepare_mels(
    clips: Sequence[Clip],
    settings: MelSettings,
    shortest_frames: int,
    *,
    cache: ArrayCache | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - tells nobody
) -> list[PreparedMel]:
    """Log-mels of the clips, each divided by its peak, in their order.

    A clip shorter than `shortest_frames` is looped to that length. Without a cache all lie in
    memory. `tell` hears how many clips of how many are done.

    Raises InvalidInputError, naming the clip, for one that is silent.
    """
    spectrogram = MelSpectrogram(settings)
    kept = cache or ArrayCache(None)
    prepared = []
    with ThreadPoolExecutor(WORKERS, "mels") as threads:
        made = threads.map(lambda clip: _prepare(clip, spectrogram, shortest_frames, kept), clips)
        for mel in made:
            prepared.append(mel)
            tell(len(prepared), len(clips))
    return prepared


def _peak_normalised(clip: Clip, shortest_samples: int) -> NDArray[np.float32]:
    """(at least `shortest_samples`,) float32: the clip with its peak at 1, looped if shorter.

    Raises InvalidInputError, naming the clip, if it is silent.
    """
    normalised = clip.samples / np.float32(_audible(clip).peak)
    looped: NDArray[np.float32] = np.resize(normalised, max(shortest_samples, clip.samples.size))
    return looped


def _audible(clip: Clip) -> Clip:
    if not clip.peak:
        raise InvalidInputError(f"{clip.name} is silent: leave it out", culprit=clip.name)
    return clip


def _prepare(
    clip: Clip, spectrogram: MelSpectrogram, shortest_frames: int, cache: ArrayCache
) -> PreparedMel:
    settings = spectrogram.settings
    shortest = max(shortest_frames * settings.hop_length, settings.shortest_samples)
    key = {
        "algorithm": ALGORITHM,
        "clip": clip.identity,
        "mel": asdict(settings),
        # Longer clips are the same whatever a crop's length.
        "looped_to": max(0, shortest - clip.samples.size) and shortest,
    }

    def make(append: Append) -> Facts:
        moments = _Moments(settings.n_mels)
        for mel in _pieces(clip, spectrogram, shortest):
            moments.add(mel)
            append(mel.T.numpy())
        return {"mean": moments.mean.tolist(), "variance": moments.variance.tolist()}

    entry = cache.get("mels", key, make)
    return PreparedMel(
        entry.array.T, np.array(entry.facts["mean"]), np.array(entry.facts["variance"])
    )


def _pieces(clip: Clip, spectrogram: MelSpectrogram, shortest: int) -> Iterator[torch.Tensor]:
    """(n_mels, frames) float32 each, which side by side are the mel of the whole clip."""
    hop = spectrogram.settings.hop_length
    if clip.samples.size <= max(shortest, PIECE_FRAMES * hop):
        yield _mel(_peak_normalised(clip, shortest), spectrogram)
        return
    peak = np.float32(_audible(clip).peak)
    # Frames that see beyond a piece's end; at the clip's own ends that is how it should be.
    margin = -(-spectrogram.settings.padding // hop)
    frames = clip.samples.size // hop
    for start in range(0, frames, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, frames)
        first = max(start - margin, 0)
        last = None if stop == frames else (stop + margin) * hop
        mel = _mel(clip.samples[first * hop : last] / peak, spectrogram)
        yield mel[:, start - first : stop - first]


def _mel(samples: NDArray[np.float32], spectrogram: MelSpectrogram) -> torch.Tensor:
    with torch.no_grad():
        mel: torch.Tensor = spectrogram(torch.from_numpy(samples)[None, None])
    return mel[0]


class _Moments:
    """Mean and variance of each band over pieces that come one after the other."""

    def __init__(self, n_mels: int) -> None:
        self._frames = 0
        self.mean = np.zeros(n_mels)
        self.variance = np.zeros(n_mels)

    def add(self, mel: torch.Tensor) -> None:
        """Chan, Golub and LeVeque (1979): exact up to rounding, whatever the means."""
        mean = mel.double().mean(dim=1).numpy()
        variance = mel.double().var(dim=1, correction=0).numpy()
        share = mel.shape[1] / (self._frames + mel.shape[1])
        between = mean - self.mean
        self.variance += share * (variance - self.variance) + share * (1 - share) * between**2
        self.mean += share * between
        self._frames += mel.shape[1]
