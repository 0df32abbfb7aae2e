"""Extraction beside plain librosa, of many files and of a long one, as ratios within one run."""

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

from services.audio.track_json import write_track
from services.audio.writing import Encoding, write_audio
from services.descriptor import mfcc
from services.descriptor.extraction import described, extract_file
from services.descriptor.mfcc import ExtractionSettings

SETTINGS = ExtractionSettings()
# What an hour may take beyond six minutes, and how far from plain librosa features may be.
ALLOWED_MEBIBYTES = 16
ALLOWED_DIFFERENCE = 1e-3
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


def ours_in_blocks(path: Path) -> None:
    """What the service runs for a sound of any length: its file is written, never held."""
    with (
        described(path, name=path.name, settings=SETTINGS) as description,
        tempfile.TemporaryFile() as file,
    ):
        write_track(file, description)
        description.statistics()


def peak_mebibytes() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def cost(work: Callable[[Path], object], path: Path) -> tuple[float, float, float]:
    """Seconds, MiB of memory, and MiB that its process had taken before."""
    mfcc.warm_up()
    before = peak_mebibytes()
    start = time.perf_counter()
    work(path)
    return time.perf_counter() - start, peak_mebibytes() - before, before


def long_sound(path: Path, minutes: int) -> Path:
    """Stereo noise at 48 kHz."""
    minute = np.random.default_rng(0).normal(0, 0.1, (60 * 48_000, 2)).astype(np.float32)
    with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16", format="WAV") as file:
        for _ in range(minutes):
            file.write(minute)
    return path


def compare_long(minutes: int) -> None:
    """Time and memory of one long sound, each way in a new process; blocks must hold theirs."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ways = (
            (minutes, ours_in_blocks),
            (minutes // 10, ours_in_blocks),
            (minutes, plain_librosa),
        )
        plain = 0.0
        taken = []
        for length, way in reversed(ways):
            path = long_sound(Path(folder) / "long.wav", length)
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                seconds, memory, before = process.submit(cost, way, path).result()
            plain = plain or seconds
            taken.append(memory)
            print(  # noqa: T201
                f"{length} minutes, {way.__name__}: {60 * length / seconds:.0f} x real time "
                f"({plain / seconds * length / minutes:.2f}), {memory:.0f} MiB beyond {before:.0f}"
            )
    _, of_a_tenth, of_all = taken
    assert of_all <= of_a_tenth + ALLOWED_MEBIBYTES


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
    parser.add_argument("--minutes", type=int, default=60, help="length of the long sound")
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
    assert difference <= ALLOWED_DIFFERENCE
    compare_long(options.minutes)


if __name__ == "__main__":
    main()
