"""Indexing and matching a million real frames on Qdrant Edge, in ratios to numpy's brute force.

The frames are descriptors of mixtures: two recordings of the example corpus, each from a moment and
at a speed and gain of its own. The queries are descriptors of the recordings to continue, which the
index has never heard.
"""

import argparse
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.audio.reading import read_audio
from services.audio.resampling import resample, to_mono
from services.descriptor import mfcc
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, SearchMode

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
RATE = 44_100
FRAMES_PER_SOUND = 1000
SPEEDS = (0.6, 1.7)
GAINS = (0.1, 1.0)
LEAST_RECALL = 0.95


def recordings(folder: str) -> list[NDArray[np.float32]]:
    """Every recording of a part of the corpus, mono at 44.1 kHz."""
    found = []
    for path in sorted((CORPUS / folder).glob("*.flac")):
        sound = read_audio(path, name=path.name)
        mono = to_mono(sound.samples)[:, None]
        found.append(resample(mono, sound.sample_rate_hertz, RATE)[:, 0])
    return found


def mixture(seed: int, material: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """FRAMES_PER_SOUND frames of two recordings at once, (frames, 39)."""
    random = np.random.default_rng(seed)
    mixed = np.zeros((FRAMES_PER_SOUND - 1) * 1024, np.float32)
    for number in random.choice(len(material), 2, replace=False):
        speed = random.uniform(*SPEEDS)
        # Read faster, a recording is also higher: as if it were played at another rate.
        changed = resample(material[number][:, None], RATE, round(RATE / speed))[:, 0]
        places = np.arange(len(mixed)) + random.integers(len(changed))
        mixed += random.uniform(*GAINS) * changed[places % len(changed)]
    return mfcc.extract(mixed, mfcc.ExtractionSettings())[0]


def brute_force(queries: NDArray[np.float32], frames: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of the nearest frames: float32 matrix products, query by query in blocks."""
    lengths = np.square(frames).sum(axis=1)
    blocks = np.array_split(queries, max(1, len(queries) // 64))
    return np.concatenate([np.argmin(lengths - 2 * block @ frames.T, axis=1) for block in blocks])


def main() -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    material = recordings("recorded")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        seeds = range(-(-options.frames // FRAMES_PER_SOUND))
        parts = list(threads.map(lambda seed: mixture(seed, material), seeds))
    frames = np.concatenate(parts)[: options.frames]
    unheard = [
        mfcc.extract(sound, mfcc.ExtractionSettings())[0] for sound in recordings("prediction")
    ]
    asked = np.concatenate(unheard)
    queries = asked[np.random.default_rng(0).choice(len(asked), options.queries, replace=False)]

    start = time.perf_counter()
    brute_force(queries, frames)
    plain = time.perf_counter() - start
    print(f"numpy brute force over {len(frames)} frames: {plain:.2f} s (1.00)")  # noqa: T201

    with tempfile.TemporaryDirectory() as folder:
        index = EdgeIndex(Path(folder))
        index.create("bench", CollectionSpec(mfcc.FEATURE_NAMES, RATE, 1024))
        start = time.perf_counter()
        for first in range(0, len(frames), FRAMES_PER_SOUND):
            source = SourceRef(f"audio/{first:09d}.wav", "0" * 64, 1, "audio/wav")
            index.add("bench", source, frames[first : first + FRAMES_PER_SOUND])
        report("Edge, taking in", time.perf_counter() - start, plain)
        for mode, skip_graph in ((SearchMode.EXACT, True), (SearchMode.APPROXIMATE, False)):
            start = time.perf_counter()
            index.publish("bench", skip_graph=skip_graph)
            report(
                "Edge, publishing" + (" without graph" * skip_graph),
                time.perf_counter() - start,
                plain,
            )
            index.search("bench", queries[:1], 1, mode)
            start = time.perf_counter()
            found = index.search("bench", queries, 1, mode)
            report(f"Edge, {mode.value}, {len(queries)} frames", time.perf_counter() - start, plain)
            if mode is SearchMode.EXACT:
                nearest = found.distances
        recall = np.mean(found.distances == nearest)
        print(f"  recall@1 {recall:.4f}")  # noqa: T201
        assert recall >= LEAST_RECALL
        index.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of it all: {peak:.0f} MiB")  # noqa: T201


def report(what: str, seconds: float, plain: float) -> None:
    """One line: seconds, and as a multiple of a brute-force batch."""
    print(f"{what}: {seconds:.2f} s ({seconds / plain:.2f} of brute force)")  # noqa: T201


if __name__ == "__main__":
    main()
