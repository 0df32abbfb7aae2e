"""Extraction beside plain librosa, file after file, as ratios within one run."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray

from services.audio.writing import Encoding, write_audio
from services.descriptor import mfcc
from services.descriptor.extraction import extract_file
from services.descriptor.mfcc import ExtractionSettings

SETTINGS = ExtractionSettings()
FORMS = ((44_100, 2), (48_000, 2), (22_050, 1), (44_100, 1))

Features = NDArray[np.float32]


def plain_librosa(path: Path) -> Features:
    """As the published notebook does it."""
    samples, rate = librosa.load(path, sr=SETTINGS.sample_rate_hertz)
    coefficients = librosa.feature.mfcc(
        y=samples, sr=rate, n_mfcc=13, n_fft=mfcc.N_FFT, hop_length=SETTINGS.hop_length
    )
    derivatives = [librosa.feature.delta(coefficients, order=order) for order in (1, 2)]
    return np.concatenate([coefficients, *derivatives]).T


def ours(path: Path) -> Features:
    """What the service runs for one request."""
    return extract_file(path, name=path.name, settings=SETTINGS).values


def timed(work: Callable[[], Sequence[Features]]) -> tuple[float, Sequence[Features]]:
    """Seconds on the clock, and what was made."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def main() -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each file")
    parser.add_argument("--rounds", type=int, default=5, help="the best of these counts")
    options = parser.parse_args()
    workers = os.cpu_count() or 1
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        paths = []
        for number in range(options.files):
            rate, channels = FORMS[number % len(FORMS)]
            samples = generator.normal(0, 0.1, (int(rate * options.seconds), channels))
            paths.append(Path(folder) / f"{number}.wav")
            write_audio(paths[-1], samples, rate, Encoding.WAV_PCM16)
        ways: dict[str, Callable[[], Sequence[Features]]] = {
            "plain librosa, file after file": lambda: [plain_librosa(path) for path in paths],
            "ours, file after file": lambda: [ours(path) for path in paths],
            f"ours, {workers} at once": lambda: list(pool.map(ours, paths)),
        }
        mfcc.warm_up()
        plain_librosa(paths[0])
        # Turn by turn, so that whatever else the machine does falls on all of them.
        rounds = [{way: timed(work) for way, work in ways.items()} for _ in range(options.rounds)]

    best = {way: min(one[way][0] for one in rounds) for way in ways}
    plain, *_ = best.values()
    total = options.files * options.seconds
    for way, seconds in best.items():
        print(f"{way}: {total / seconds:.0f} x real time ({plain / seconds:.2f})")  # noqa: T201
    expected, *answers = (made for _, made in rounds[0].values())
    difference = max(
        float(np.abs(one - other).max())
        for answer in answers
        for one, other in zip(expected, answer, strict=True)
    )
    print(f"largest difference from plain librosa: {difference:.1e}")  # noqa: T201


if __name__ == "__main__":
    main()
