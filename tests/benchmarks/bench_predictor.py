"""500 steps after a window of 500 frames: with keys and values kept, beside computing all anew.

Run as `python tests/benchmarks/bench_predictor.py`. Both sides draw the same sequence from the same
weights, in one run; what counts is their ratio.
"""

import time
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from services.predictor.networks.network import Chance, NetworkShape
from services.predictor.networks.probabilistic_transformer import ProbabilisticTransformer
from services.predictor.port import never_stop
from services.predictor.training.presets import preset

ARCHITECTURE = "ProbabilisticTransformer"
FEATURES = 13
WINDOW = 500
STEPS = 500
WANTED_RATIO = 5.0


def network() -> ProbabilisticTransformer:
    settings = preset("standard", ARCHITECTURE)
    sizes = {
        each.name: getattr(settings, each.name)
        for each in fields(NetworkShape)
        if hasattr(settings, each.name)
    }
    torch.manual_seed(0)
    return ProbabilisticTransformer(NetworkShape(feature_count=FEATURES, **sizes)).eval()


def timed(make: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    model = network()
    window = torch.randn(1, WINDOW, FEATURES, generator=torch.Generator().manual_seed(1))
    chance = Chance(seeds=(2,), temperature=1.0)

    def kept() -> Tensor:
        return model.continued(window, STEPS, 1, "sliding", never_stop, chance=chance)

    def anew() -> Tensor:
        return model.recomputed(window, STEPS, never_stop, chance=chance)

    kept()
    first, first_seconds = timed(kept)
    other, anew_seconds = timed(anew)
    _, second_seconds = timed(kept)
    kept_seconds = max(first_seconds, second_seconds)
    torch.testing.assert_close(first[:, :20], other[:, :20], rtol=1e-3, atol=1e-3)
    ratio = anew_seconds / kept_seconds
    print(f"predictor: {STEPS} steps after a window of {WINDOW} frames")  # noqa: T201
    print(f"  keys and values kept     {kept_seconds:7.2f} s")  # noqa: T201
    print(f"  all computed anew        {anew_seconds:7.2f} s")  # noqa: T201
    print(f"  ratio                    {ratio:7.1f}")  # noqa: T201
    assert ratio >= WANTED_RATIO


if __name__ == "__main__":
    main()
