"""Rendering 10 000 segments from 200 files, beside reopening the file for each segment.

Run as `python tests/benchmarks/bench_playback.py`. Both sides make the same piece, sample for
sample, in one run; what counts is their ratio.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from services.audio.match_table import MatchTable, SourceRef
from services.audio.reading import Sound, read_audio
from services.audio.writing import Encoding, write_audio
from services.playback.mixer import Mixer
from services.playback.segments import RenderSettings

FILES = 200
SEGMENTS = 10_000
SECONDS_A_FILE = 5
RATE = 44_100
HOP = 1024


class Folder:
    """Reads sources from a folder and counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opens = 0

    def read(self, source: SourceRef) -> Sound:
        self.opens += 1
        return read_audio(self.path / source.key, name=source.key)


def write_files(folder: Path, generator: np.random.Generator) -> tuple[SourceRef, ...]:
    sources = []
    for number in range(FILES):
        samples = generator.uniform(-0.5, 0.5, (SECONDS_A_FILE * RATE, 1))
        write_audio(folder / f"{number}.wav", samples, RATE, Encoding.WAV_PCM16)
        sources.append(SourceRef(f"{number}.wav", "0" * 64, 0, "audio/wav"))
    return tuple(sources)


def random_matches(sources: tuple[SourceRef, ...], generator: np.random.Generator) -> MatchTable:
    frames = SECONDS_A_FILE * RATE // HOP
    return MatchTable(
        sources,
        RATE,
        HOP,
        generator.integers(FILES, size=(SEGMENTS, 1), dtype=np.uint32),
        generator.integers(frames, size=(SEGMENTS, 1), dtype=np.uint64) * np.uint64(HOP),
        np.zeros((SEGMENTS, 1), np.float32),
    )


def rendered(folder: Folder, table: MatchTable, **options: int) -> tuple[np.ndarray, float, int]:
    folder.opens = 0
    begin = time.perf_counter()
    mixer = Mixer(table, folder.read, RenderSettings(channel_count=1), **options)
    piece = np.concatenate(list(mixer.render()))
    return piece, time.perf_counter() - begin, folder.opens


def main() -> None:
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(Path(path))
        table = random_matches(write_files(folder.path, generator), generator)
        rendered(folder, table)  # once unmeasured, so that both find the files in memory
        cached, cached_seconds, cached_opens = rendered(folder, table)
        # No room for a second source: each segment opens its file, as the published engine does.
        reopened, reopened_seconds, opens = rendered(folder, table, cache_bytes=1)
    assert np.array_equal(cached, reopened)
    length = len(cached) / RATE
    print(f"playback: {SEGMENTS} segments of {FILES} files, {length:.0f} s of sound")  # noqa: T201
    print(  # noqa: T201
        f"  each source opened once  {cached_seconds:7.2f} s, {cached_opens} opens, "
        f"{length / cached_seconds:.0f} x real time"
    )
    print(f"  reopened for each        {reopened_seconds:7.2f} s, {opens} opens")  # noqa: T201
    print(f"  ratio                    {reopened_seconds / cached_seconds:7.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
