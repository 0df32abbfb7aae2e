"""The trainer of each family, made from an order and the recordings that it names."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from services.cli.corpus import readable, recordings
from services.cli.progress import Reporter
from services.cli.training.order import Order
from services.cli.training.trainer import Trainer
from services.errors import InvalidInputError

DEFAULT_STEPS = {
    ("melgan", "demo-cpu"): 1500,
    ("unagan", "demo-cpu"): 420,
}


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            f"--device {name}: this machine offers no such device", culprit="--device"
        ) from error
    return name


def _clips(order: Order, progress: Reporter, sample_rate_hertz: int) -> list[Any]:
    from services.synth.clips import Clip

    corpus = recordings(order.folder)
    return [
        Clip(recording.name, samples.clip(-1, 1))
        for recording, samples in readable(corpus, sample_rate_hertz, progress.say)
    ]


def _melgan(order: Order, progress: Reporter) -> tuple[Trainer, int, str]:
    from services.synth.melgan.presets import preset
    from services.synth.melgan.training import MelGanTrainer

    settings = _overridden(preset(order.preset), order.overrides)
    steps = _steps(order)
    clips = _clips(order, progress, settings.generator.mel.sample_rate_hertz)
    trainer = MelGanTrainer(settings, clips, device=_device(order.device), seed=order.seed)
    return trainer, steps, "mel_error"


def _unagan(order: Order, progress: Reporter) -> tuple[Trainer, int, str]:
    from services.synth.unagan.presets import preset
    from services.synth.unagan.training import UnaganTrainer

    settings = _overridden(preset(order.preset), order.overrides)
    steps = _steps(order)
    clips = _clips(order, progress, settings.networks.mel.sample_rate_hertz)
    for clip in clips:
        if not clip.samples.any():
            progress.say(f"left out: {clip.name} is silent")
    trainer = UnaganTrainer(settings, clips, device=_device(order.device), seed=order.seed)
    return trainer, steps, settings.validation_figure


def _predictor(order: Order, progress: Reporter) -> tuple[Trainer, int, str]:
    from services.audio.track import DescriptorTrack
    from services.descriptor import mfcc
    from services.predictor.presets import preset
    from services.predictor.training import PredictorTrainer

    extraction = mfcc.ExtractionSettings()
    settings = _overridden(preset(order.preset), order.overrides)
    tracks = []
    corpus = recordings(order.folder)
    for recording, samples in readable(corpus, extraction.sample_rate_hertz, progress.say):
        values, _ = mfcc.extract(samples, extraction)
        track = DescriptorTrack(
            feature_names=mfcc.FEATURE_NAMES,
            values=values,
            sample_rate_hertz=extraction.sample_rate_hertz,
            hop_length_samples=extraction.hop_length,
            source=recording.name,
        )
        tracks.append(track)
        progress.update("describing recordings", len(tracks), len(corpus))
    trainer = PredictorTrainer(settings, tracks, device=_device(order.device), seed=order.seed)
    for name in trainer.corpus.too_short:
        progress.say(f"left out: {name} is too short for the window")
    return (
        trainer,
        order.steps or DEFAULT_STEPS.get((order.family, order.preset), trainer.total_steps),
        settings.validation_figure,
    )


TRAINERS: Mapping[str, Callable[[Order, Reporter], tuple[Trainer, int, str]]] = {
    "melgan": _melgan,
    "unagan": _unagan,
    "predictor": _predictor,
}


def _steps(order: Order) -> int:
    steps = order.steps or DEFAULT_STEPS.get((order.family, order.preset))
    if steps is None:
        raise InvalidInputError(
            f"preset {order.preset!r} does not say how long to train: give --steps",
            culprit="--steps",
        )
    return steps


def _overridden(settings: Any, overrides: Mapping[str, Any] | None) -> Any:
    unknown = set(overrides or {}) - set(asdict(settings))
    if unknown:
        raise InvalidInputError(f"no such training settings: {', '.join(sorted(unknown))}")
    return replace(settings, **(overrides or {}))
