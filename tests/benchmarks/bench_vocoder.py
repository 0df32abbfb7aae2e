"""MelGAN of the published size, in cache-sized chunks, beside the same generator run plainly.

Run as `python tests/benchmarks/bench_vocoder.py [--rounds 4] [--compile]`. Plainly is: weight norm
in place, eager, the whole sequence at once. All answer the same mel in turns, and what counts is
the ratio of their best times: for twenty seconds of `original` it must be 1.8 and more. The longer
a sound, the less of it a cache holds, which chunks do not feel: four seconds are shown beside.
`--compile` adds torch.compile, which needs a C++ compiler.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from services.synth.generation.vocoding import Vocoder
from services.synth.melgan.generator import (
    Generator,
    MelGanSettings,
    load_generator,
    save_generator,
)

WANTED_RATIO = 1.8
TOLERANCE = 1e-4
SECONDS = (4, 20)


def contestants(variant: str, *, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways to make a mel sound, by name; the plain one first."""
    torch.manual_seed(0)
    plain = Generator(MelGanSettings(variant=variant)).eval()  # type: ignore[arg-type]
    folded, _ = load_generator(plain.settings.to_config(), save_generator(plain))
    vocoder = Vocoder(folded)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda mel: plain(mel)[:, 0],
        "weight norm folded": lambda mel: folded(mel)[:, 0],
        "in chunks": lambda mel: torch.cat(list(vocoder.chunks(mel)), dim=1),
    }
    if compiled:
        fused = torch.compile(folded)
        ways["folded, compiled"] = lambda mel: fused(mel)[:, 0]
    return ways


def measured(
    ways: dict[str, Callable[[Tensor], Tensor]], mel: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        expected = next(iter(ways.values()))(mel)
        for name, way in ways.items():
            difference = (way(mel) - expected).abs().max().item()
            assert difference < TOLERANCE, f"{name}: differs by {difference}"
        for _ in range(rounds):
            for name, way in ways.items():
                begin = time.perf_counter()
                way(mel)
                times[name].append(time.perf_counter() - begin)
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    settings = MelGanSettings().mel
    ratios = {}
    for variant in ("original", "gru"):
        ways = contestants(variant, compiled=given.compile)
        for seconds in SECONDS:
            frames = round(seconds * settings.sample_rate_hertz / settings.hop_length)
            torch.manual_seed(1)
            times = measured(ways, torch.randn(1, settings.n_mels, frames) - 2, given.rounds)
            plain = min(times["plain"])
            print(f"{variant}: {seconds} s of sound, {torch.get_num_threads()} threads")  # noqa: T201
            for name, rounds in times.items():
                best, median = min(rounds), sorted(rounds)[len(rounds) // 2]
                print(  # noqa: T201
                    f"  {name:<20} best {seconds / best:5.1f} x real time, "
                    f"median {seconds / median:5.1f}, {plain / best:4.2f} x plain"
                )
            ratios[variant, seconds] = plain / min(times["in chunks"])
    ratio = ratios["original", max(SECONDS)]
    assert ratio >= WANTED_RATIO, f"{ratio:.2f} times plain is less than {WANTED_RATIO}"


if __name__ == "__main__":
    main()
