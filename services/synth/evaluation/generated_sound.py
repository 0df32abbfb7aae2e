"""Generated sound: what an UNAGAN sings, judged beside held-out recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.synth.corpus.clips import Clip
from services.synth.evaluation.excerpts import excerpts, seconds_of
from services.synth.evaluation.frechet import (
    Frames,
    Gaussian,
    Standard,
    frechet_distance,
    half_to_half,
    mfcc_frames,
    pieces,
    spread,
)
from services.synth.evaluation.judgement import Judgement, Panel, Progress, log_mel, silently
from services.synth.generation.singing import sing
from services.synth.generation.synthesizer import Synthesizer
from services.synth.griffin_lim import griffin_lim
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator
from services.synth.unagan.generator import Unagan

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class GeneratedSound:
    """How an UNAGAN is judged."""

    items: int = 16
    """Sounds that it sings, from seeds that follow each other."""
    seconds: float = 4.0
    """Length of each."""
    seed: int = 0
    """The first of the seeds; the splits and the noise are drawn by it, too."""
    recorded_seconds_each: float = 60.0
    """How much of each recording is compared, from its beginning."""
    recorded_seconds_in_all: float = 600.0
    """How much of training and of held-out recordings is compared, each."""
    splits: int = 200
    """Ways to halve the corpus, over which half against half is averaged: of 20 the mean still
    varies by a tenth with their seed."""
    silent_below: float = 1e-3
    """A sound whose peak is lower is silent: 60 dB below full scale."""
    clipped_above: float = 0.999
    """A sample beyond it is at the limit."""
    clipped_share: float = 1e-3
    """A sound with a greater share of its samples at the limit is clipped."""
    pictured: int = 3
    """Generated sounds that the picture shows, and recordings beside them."""


def judge_unagan(
    unagan: Unagan,
    vocoder: Generator | None,
    training: Sequence[Clip],
    held_out: Sequence[Clip],
    settings: GeneratedSound | None = None,
    *,
    progress: Progress = silently,
    unagan_id: str = "the UNAGAN",
    vocoder_id: str = "the MelGAN",
) -> Judgement:
    """Judges by clips at the model's rate; Griffin-Lim voices the mels where there is no vocoder.

    All distances are of MFCC frames of sounds whose peaks are brought to 1, as in the training;
    silent ones have none and are only counted. Each coefficient is standardised by its mean and
    deviation over all recordings, training and held-out together, for all distances alike, so
    figures are in squared deviations of that corpus and are not comparable between corpora.

    - `frechet_distance`: generated against held-out sound;
    - `frechet_distance_training`: training against held-out sound, which is what a model would get
      that knew its corpus and no more: where few files are held out they differ much from the rest;
    - `frechet_distance_corpus`: generated against all recordings;
    - `frechet_distance_half_to_half`: half of all recordings against the other half;
    - `frechet_distance_noise`: white noise, as loud as the held-out sound, against it;
    - `frechet_items`: how many sounds were generated;
    - `spread_between_seeds`: mean distance between the mean MFCCs of two generated sounds, as a
      multiple of that between two recordings: near 0 all seeds sound alike;
    - `silent_share`, `clipped_share`: of the generated sounds.

    Where all generated sounds are silent there are no distances of them. The ids are for words
    alone. Raises InvalidInputError if the held-out recordings are silent or what is sung is not
    finite, and SettingsMismatchError if unagan and vocoder do not fit together.
    """
    settings = settings or GeneratedSound()
    mel = unagan.settings.mel
    rate = mel.sample_rate_hertz
    known, new = (_audible(clips, rate, settings) for clips in (training, held_out))
    if not new:
        raise InvalidInputError("the held-out recordings are silent: there is nothing to judge by")
    voice = (
        _griffin_lim_voice(unagan)
        if vocoder is None
        else Synthesizer(unagan, vocoder, unagan_id=unagan_id, melgan_id=vocoder_id).generate
    )
    sounds = _sung(voice, round(settings.seconds * rate), settings, progress)
    audible = [sound for sound in sounds if np.abs(sound).max() >= settings.silent_below]
    figures = {
        "frechet_items": float(len(sounds)),
        "silent_share": 1 - len(audible) / len(sounds),
        "clipped_share": float(np.mean([_clipped(sound, settings) for sound in sounds])),
        **_distances(audible, known, new, rate, settings),
    }
    remarks = _remarks(known, new, rate, settings, vocoder_id if vocoder else "Griffin-Lim")
    rows = _rows(sounds, [*new, *known], mel, settings)
    return Judgement(figures, remarks, rows, mel.hop_length / rate)


def _remarks(
    known: Sequence[Clip], new: Sequence[Clip], rate: int, settings: GeneratedSound, voice: str
) -> list[str]:
    return [
        f"Generated: {settings.items} sounds of {settings.seconds:g} s, seeds {settings.seed} to "
        f"{settings.seed + settings.items - 1}, voiced by {voice}. Held out: {len(new)}, "
        f"{seconds_of(new, rate):.1f} s; of the training: {len(known)}, "
        f"{seconds_of(known, rate):.1f} s. Fréchet distance of 13 MFCCs, peaks at 1, each "
        "coefficient standardised by its mean and deviation over all these recordings; half to "
        f"half: mean of {settings.splits} splits by file. Lower is better, but for the spread.",
        "`frechet_distance` is that of generated from held-out sound, `…_corpus` that from all "
        "recordings, `…_training` that of the training's own recordings from the held-out ones, "
        "`…_noise` that of white noise as loud.",
    ]


def _rows(
    sounds: Sequence[FloatArray],
    recordings: Sequence[Clip],
    mel: MelSettings,
    settings: GeneratedSound,
) -> list[list[Panel]]:
    """The first recordings, which are the held-out ones, above the first generated sounds."""
    length = round(settings.seconds * mel.sample_rate_hertz)
    return [
        [
            Panel(f"recording: {clip.name}", log_mel(_at_full_scale(clip)[:length], mel))
            for clip in recordings[: settings.pictured]
        ],
        [
            Panel(f"generated, seed {settings.seed + number}", log_mel(sound, mel))
            for number, sound in enumerate(sounds[: settings.pictured])
        ],
    ]


def _sung(
    generate: Callable[[int, int], FloatArray],
    length: int,
    settings: GeneratedSound,
    progress: Progress,
) -> list[FloatArray]:
    sounds = []
    for number in range(settings.items):
        progress(number, settings.items)
        sounds.append(generate(length, settings.seed + number))
        if not np.isfinite(sounds[-1]).all():
            raise InvalidInputError("what the model sings is not finite: its training diverged")
    progress(settings.items, settings.items)
    return sounds


def _distances(
    audible: Sequence[FloatArray],
    known: Sequence[Clip],
    new: Sequence[Clip],
    rate: int,
    settings: GeneratedSound,
) -> dict[str, float]:
    """The Fréchet distances and the spread, as far as there is sound for them."""
    known_raw, new_raw = (
        [mfcc_frames(clip.samples, rate) for clip in group] for group in (known, new)
    )
    standard = Standard.of(known_raw + new_raw)
    known_frames, new_frames = standard.apply(known_raw), standard.apply(new_raw)
    corpus = known_frames + new_frames
    held_out = Gaussian.of(new_frames)
    noise = Gaussian.of(standard.apply(_noise_frames(new, rate, settings)))
    figures = {
        "frechet_distance_half_to_half": half_to_half(
            corpus, splits=settings.splits, seed=settings.seed
        ),
        "frechet_distance_noise": frechet_distance(noise, held_out),
    }
    if known_frames:
        training = Gaussian.of(known_frames)
        figures["frechet_distance_training"] = frechet_distance(training, held_out)
    if audible:
        own_frames = standard.apply([mfcc_frames(sound, rate) for sound in audible])
        own = Gaussian.of(own_frames)
        figures["frechet_distance"] = frechet_distance(own, held_out)
        figures["frechet_distance_corpus"] = frechet_distance(own, Gaussian.of(corpus))
        among_recordings = spread(pieces(corpus))
        if among_recordings > 0 and len(own_frames) > 1:
            figures["spread_between_seeds"] = spread(own_frames) / among_recordings
    return figures


def _griffin_lim_voice(unagan: Unagan) -> Callable[[int, int], FloatArray]:
    mel = unagan.settings.mel

    def generate(length: int, seed: int) -> FloatArray:
        log_mels = sing(unagan, -(-length // mel.hop_length), [seed])[0].cpu().numpy()
        # Not cut off at full scale, as a file would be: that would be another timbre.
        return griffin_lim(log_mels, mel, seed=seed)[:length]

    return generate


def _audible(clips: Sequence[Clip], rate: int, settings: GeneratedSound) -> list[Clip]:
    audible = [clip for clip in clips if clip.peak > 0]
    if not audible:
        return []
    cut = excerpts(
        audible,
        rate,
        seconds_each=settings.recorded_seconds_each,
        seconds_in_all=settings.recorded_seconds_in_all,
    )
    return [clip for clip in cut if clip.peak > 0]


def _noise_frames(held_out: Sequence[Clip], rate: int, settings: GeneratedSound) -> list[Frames]:
    """MFCCs of as many sounds of white noise, with the power of the held-out clips."""
    powers = [np.square(_at_full_scale(clip)).mean() for clip in held_out]
    level = np.sqrt(np.average(powers, weights=[clip.samples.size for clip in held_out]))
    random = np.random.default_rng(settings.seed)
    length = max(round(settings.seconds * rate), 1)
    return [
        mfcc_frames(level * random.standard_normal(length), rate, normalised=False)
        for _ in range(settings.items)
    ]


def _at_full_scale(clip: Clip) -> FloatArray:
    scaled: FloatArray = clip.samples / clip.peak
    return scaled


def _clipped(sound: FloatArray, settings: GeneratedSound) -> bool:
    at_limit = np.abs(sound) >= settings.clipped_above
    return bool(at_limit.mean() > settings.clipped_share)
