"""Preparing a corpus in threads, in processes and from the cache, as ratios within one run."""

import argparse
import io
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import soundfile

from services.audio.reading import read_audio
from services.audio.resampling import resample, to_mono
from services.learning.array_cache import ArrayCache
from services.synth.corpus.clips import Clip
from services.synth.corpus.mel_preparation import prepare_mels
from services.synth.corpus.preparation import prepare_clips, sha256_of
from services.synth.mel import MelSettings

MEL = MelSettings()
CROP_FRAMES = 860
FORMS = ((48_000, 2), (44_100, 2), (44_100, 1), (22_050, 1))
# What an hour may take beyond six minutes.
ALLOWED_MEBIBYTES = 16


@dataclass(frozen=True)
class Recording:
    """A file of the benchmark."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def sha256(self) -> str:
        with self.open() as file:
            return sha256_of(file)

    def open(self) -> io.BufferedReader:
        return self.path.open("rb")


def plainly(path: Path) -> int:
    """Samples of a recording that is read whole, without a cache: what a process would do."""
    sound = read_audio(path, name=path.name)
    mono = to_mono(sound.samples)[:, None]
    return len(resample(mono, sound.sample_rate_hertz, MEL.sample_rate_hertz))


def prepared(paths: Sequence[Path], folder: Path, workers: int) -> list[Clip]:
    """What a training does; the hashes of the files are part of it."""
    sources = [Recording(path) for path in paths]
    return prepare_clips(sources, MEL.sample_rate_hertz, cache=ArrayCache(folder), workers=workers)


def write(path: Path, rate: int, channels: int, seconds: float, seed: int) -> Path:
    """Noise under a slow tremolo, as 16-bit FLAC."""
    random = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16", format="FLAC") as file:
        for start in range(0, int(rate * seconds), rate):
            time_seconds = (start + np.arange(rate)) / rate
            file.write(random.normal(0, 0.1, (rate, channels)) * np.sin(time_seconds)[:, None])
    return path


def compare(paths: Sequence[Path], seconds: float, rounds: int) -> None:
    """Each way in turn, so that whatever else the machine does falls on all of them."""
    workers = os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as kept,
        ProcessPoolExecutor(workers, mp_context=spawn) as processes,
    ):
        list(processes.map(plainly, paths))
        clips = prepared(paths, Path(kept), workers)

        def anew(workers: int) -> None:
            with tempfile.TemporaryDirectory() as folder:
                prepared(paths, Path(folder), workers)

        def mels(folder: Path | None) -> None:
            prepare_mels(clips, MEL, CROP_FRAMES, cache=ArrayCache(folder))

        mels(Path(kept))
        ways: dict[str, Callable[[], object]] = {
            "clips, read whole in turn": lambda: [plainly(path) for path in paths],
            f"clips, read whole in {workers} processes": lambda: list(
                processes.map(plainly, paths)
            ),
            "clips, prepared and kept by 1 thread": partial(anew, 1),
            f"clips, prepared and kept by {workers} threads": partial(anew, workers),
            "clips, from the cache": partial(prepared, paths, Path(kept), workers),
            "mels, made": partial(mels, None),
            "mels, from the cache": partial(mels, Path(kept)),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for way, work in ways.items():
                start = time.perf_counter()
                work()
                best[way] = min(best[way], time.perf_counter() - start)
    plain = {"clips": best["clips, read whole in turn"], "mels": best["mels, made"]}
    for way, taken in best.items():
        ratio = plain[way.split(",")[0]] / taken
        print(f"{way}: {seconds / taken:.0f} x real time ({ratio:.2f})")  # noqa: T201


def memory(path: Path, folder: Path) -> float:
    """MiB that preparing takes at most beyond what its process had."""

    def peak_mebibytes() -> float:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    before = peak_mebibytes()
    prepared([path], folder, 1)
    return peak_mebibytes() - before


def compare_long(minutes: int) -> None:
    """The memory of one long recording, beside one of a tenth; it must hardly grow."""
    taken = []
    spawn = multiprocessing.get_context("spawn")
    for length in (minutes / 10, minutes):
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, mp_context=spawn) as process,
        ):
            path = write(Path(folder) / "long.flac", 48_000, 2, 60 * length, 0)
            taken.append(process.submit(memory, path, Path(folder) / "cache").result())
        print(f"{length:.0f} minutes: {taken[-1]:.0f} MiB")  # noqa: T201
    assert taken[1] <= taken[0] + ALLOWED_MEBIBYTES


def main() -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=60, help="length of each file")
    parser.add_argument("--rounds", type=int, default=5, help="the best of these counts")
    parser.add_argument("--minutes", type=int, default=60, help="length of the long recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write(Path(folder) / f"{number}.flac", *FORMS[number % 4], options.seconds, number)
            for number in range(options.files)
        ]
        compare(paths, options.files * options.seconds, options.rounds)
    compare_long(options.minutes)


if __name__ == "__main__":
    main()
