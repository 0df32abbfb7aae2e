"""Real sound files, read by the real reader; only the opens are counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.audio.match_table import MatchTable, SourceRef
from services.audio.reading import Sound, read_audio
from services.audio.writing import Encoding, write_audio


class SoundFolder:
    """Writes sounds to a folder and reads them back as playback does, counting."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opens: Counter[str] = Counter()

    def add(
        self,
        key: str,
        samples: NDArray[np.floating],
        *,
        rate: int = 44_100,
        encoding: Encoding = Encoding.WAV_FLOAT,
    ) -> SourceRef:
        if samples.ndim == 1:
            samples = samples[:, np.newaxis]
        write_audio(self._folder / key, samples, rate, encoding)
        return SourceRef(key, "0" * 64, (self._folder / key).stat().st_size, "audio/wav")

    def read(self, source: SourceRef) -> Sound:
        self.opens[source.key] += 1
        return read_audio(self._folder / source.key, name=source.key)


@pytest.fixture
def sounds(tmp_path: Path) -> SoundFolder:
    return SoundFolder(tmp_path)


@pytest.fixture
def table_of() -> Callable[..., MatchTable]:
    def build(
        sources: Sequence[SourceRef],
        matches: Sequence[tuple[int, int]],
        *,
        rate: int = 44_100,
        hop: int = 1024,
    ) -> MatchTable:
        """One neighbour a frame: (source index, start sample)."""
        indices, starts = zip(*matches, strict=True) if matches else ((), ())
        return MatchTable(
            sources=tuple(sources),
            sample_rate_hertz=rate,
            hop_length_samples=hop,
            source_indices=np.array(indices, np.uint32).reshape(-1, 1),
            start_samples=np.array(starts, np.uint64).reshape(-1, 1),
            distances=np.linspace(0, 1, len(matches), dtype=np.float32).reshape(-1, 1),
        )

    return build


@pytest.fixture
def noise() -> Callable[..., NDArray[np.float32]]:
    def build(samples: int, channels: int = 1, *, seed: int = 0) -> NDArray[np.float32]:
        generator = np.random.default_rng(seed)
        return generator.uniform(-0.9, 0.9, (samples, channels)).astype(np.float32)

    return build
