"""Indexing and matching on Qdrant Edge beside a numpy brute force, as ratios within one run."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, SearchMode

FRAMES_PER_SOUND = 1000
FEATURES = 39
CLUSTERS = 400


def realistic_frames(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Frames that move within timbres, with spreads as MFCCs, deltas and delta-deltas have."""
    spreads = np.concatenate([np.geomspace(120, 6, 13) * share for share in (1.0, 0.12, 0.05)])
    centres = generator.normal(size=(CLUSTERS, FEATURES)) * spreads
    members = generator.integers(CLUSTERS, size=count)
    moved = centres[members] + 0.3 * generator.normal(size=(count, FEATURES)) * spreads
    return moved.astype(np.float32)


def brute_force(queries: NDArray[np.float32], frames: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of the nearest frames: float32 matrix products, query by query in blocks."""
    lengths = np.square(frames).sum(axis=1)
    blocks = np.array_split(queries, max(1, len(queries) // 64))
    return np.concatenate([np.argmin(lengths - 2 * block @ frames.T, axis=1) for block in blocks])


def main() -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    both = realistic_frames(options.frames + options.queries, generator)
    frames, queries = both[: options.frames], both[options.frames :]

    start = time.perf_counter()
    nearest = brute_force(queries, frames)
    plain = time.perf_counter() - start
    print(f"numpy brute force: {options.queries / plain:.0f} queries/s (1.00)")  # noqa: T201

    names = tuple(f"mfcc{number}" for number in range(FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        index = EdgeIndex(Path(folder))
        index.create("bench", CollectionSpec(names, 44100, 1024))
        start = time.perf_counter()
        for first in range(0, len(frames), FRAMES_PER_SOUND):
            source = SourceRef(f"audio/{first:09d}.wav", "0" * 64, 1, "audio/wav")
            index.add("bench", source, frames[first : first + FRAMES_PER_SOUND])
        taken_in = time.perf_counter() - start
        start = time.perf_counter()
        index.publish("bench")
        published = time.perf_counter() - start
        print(  # noqa: T201
            f"Edge, taking in {len(frames)} frames: {taken_in:.1f} s "
            f"({taken_in / plain:.1f} x a brute-force batch), graph: {published:.1f} s"
        )
        for mode in SearchMode:
            start = time.perf_counter()
            found = index.search("bench", queries, 1, mode)
            spent = time.perf_counter() - start
            rows = found.source_indices[:, 0] * np.int64(FRAMES_PER_SOUND) + (
                found.start_samples[:, 0] // np.uint64(1024)
            ).astype(np.int64)
            print(  # noqa: T201
                f"Edge, {mode.value}: {options.queries / spent:.0f} queries/s "
                f"({plain / spent:.2f}), recall@1 {np.mean(rows == nearest):.4f}"
            )
        index.close()


if __name__ == "__main__":
    main()
