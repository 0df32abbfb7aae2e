"""A sound of the published size, made in a process of its own; prints by how many MiB it grew.

Run as `python -m tests.unit.synth.generation.sounding SECONDS VARIANT NETWORKS`, NETWORKS being
`both` or `vocoder`.
"""

import resource
import sys

import torch

from services.synth.generation.synthesizer import Synthesizer
from services.synth.generation.vocoding import Vocoder
from services.synth.melgan.generator import Generator, MelGanSettings
from services.synth.unagan.generator import Unagan, UnaganSettings, build_generator

RATE = 44_100


def peak_mebibytes() -> float:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(seconds: str, variant: str, networks: str) -> None:
    """Makes the sound and throws it away."""
    samples = int(seconds) * RATE
    generator = Generator(MelGanSettings(variant=variant)).eval().requires_grad_(False)  # type: ignore[arg-type]
    vocoder = Vocoder(generator.remove_weight_norm())
    settings = UnaganSettings()
    if networks == "both":
        singer = build_generator(settings).eval().requires_grad_(False)
        statistics = torch.full((80,), -2.0), torch.ones(80)
        unagan = Unagan(settings, singer, *statistics)
        synthesizer = Synthesizer(unagan, vocoder, unagan_id="singer", melgan_id="voice")
        before = peak_mebibytes()
        made = sum(len(piece) for piece in synthesizer.pieces(samples, 1))
    else:
        mel = torch.randn(1, 80, -(-samples // 256)) - 2
        before = peak_mebibytes()
        made = sum(chunk.shape[1] for chunk in vocoder.chunks(mel))
    assert made >= samples
    sys.stdout.write(f"{peak_mebibytes() - before} {peak_mebibytes()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
