"""Copy synthesis: a MelGAN's copies of held-out recordings, from their mels.

Beside each figure stands that of Griffin-Lim from the same mels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.errors import InvalidInputError
from services.synth.corpus.clips import Clip
from services.synth.evaluation.excerpts import excerpts, seconds_of
from services.synth.evaluation.judgement import (
    Judgement,
    Panel,
    Progress,
    log_mel,
    silently,
    weighted_mean,
)
from services.synth.evaluation.spectral_distance import stft_distance
from services.synth.generation.synthesizer import ready, resynthesize
from services.synth.griffin_lim import ITERATIONS, griffin_lim
from services.synth.melgan.generator import Generator


@dataclass(frozen=True)
class CopySynthesis:
    """How a MelGAN is judged."""

    seconds_each: float = 5.0
    """How much of each recording is copied, from its beginning."""
    seconds_in_all: float = 60.0
    """How much is copied altogether."""
    griffin_lim_iterations: int = ITERATIONS
    """Rounds of Griffin-Lim."""
    pictured: int = 3
    """Recordings that the picture shows."""


def judge_melgan(
    generator: Generator,
    held_out: Sequence[Clip],
    settings: CopySynthesis | None = None,
    *,
    progress: Progress = silently,
) -> Judgement:
    """Judges by clips at the generator's rate, which its training did not see.

    `mel_error` is the mean absolute difference of log10 mels, `stft_distance` the multi-resolution
    STFT distance of the samples, both by clip and weighted by length; `griffin_lim_…` are those of
    Griffin-Lim from the same mels. Raises InvalidInputError if there are no clips, or copies are
    not finite.
    """
    settings = settings or CopySynthesis()
    mel_settings = generator.settings.mel
    rate = mel_settings.sample_rate_hertz
    clips = excerpts(
        held_out, rate, seconds_each=settings.seconds_each, seconds_in_all=settings.seconds_in_all
    )
    vocoder = ready(generator)
    found: dict[str, list[float]] = {}
    rows: list[list[Panel]] = [[], [], []]
    for number, clip in enumerate(clips):
        progress(number, len(clips))
        mel = log_mel(clip.samples, mel_settings)
        baseline = griffin_lim(mel, mel_settings, iterations=settings.griffin_lim_iterations)
        copies = {
            "": resynthesize(vocoder, clip.samples[:, None], rate),
            "griffin_lim_": baseline[: clip.samples.size],
        }
        if not np.isfinite(copies[""]).all():
            raise InvalidInputError("what the model copies is not finite: its training diverged")
        mels = {prefix: log_mel(copy, mel_settings) for prefix, copy in copies.items()}
        for prefix, copy in copies.items():
            error = float(np.abs(mels[prefix] - mel).mean())
            found.setdefault(f"{prefix}mel_error", []).append(error)
            distance = stft_distance(clip.samples, copy)
            found.setdefault(f"{prefix}stft_distance", []).append(distance)
        if number < settings.pictured:
            rows[0].append(Panel(f"recording: {clip.name}", mel))
            rows[1].append(Panel("copy by this MelGAN", mels[""]))
            rows[2].append(Panel("copy by Griffin-Lim", mels["griffin_lim_"]))
    progress(len(clips), len(clips))
    weights = [clip.samples.size for clip in clips]
    figures = {name: weighted_mean(values, weights) for name, values in found.items()}
    remark = (
        f"Copy synthesis of held-out recordings: {len(clips)}, {seconds_of(clips, rate):.1f} s, "
        f"the first {settings.seconds_each:g} s of each. Griffin-Lim: "
        f"{settings.griffin_lim_iterations} iterations, from the same mels by non-negative least "
        "squares. Lower is better."
    )
    return Judgement(figures, [remark], rows, mel_settings.hop_length / rate)
