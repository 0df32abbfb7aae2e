"""Training from recordings: each family's trainer, composed with audio, store and tracking."""

import hashlib
import secrets
import string
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from services.cli.corpus import fingerprint, readable, recordings, storable
from services.cli.fitting import Fit, Trainer, fit
from services.cli.progress import Reporter
from services.errors import InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore

# Raised when the same recordings and settings should make other weights.
ALGORITHM = 1

DEFAULT_STEPS = {
    ("melgan", "demo-cpu"): 1500,
    ("unagan", "demo-cpu"): 420,
}


@dataclass(frozen=True)
class Order:
    """What to train, on what, and how."""

    family: str
    folder: Path
    preset: str
    seed: int
    device: str = "auto"
    steps: int | None = None
    """None means what the preset is made for."""
    overrides: Mapping[str, Any] | None = None
    """Values of the preset to replace, by name."""


@dataclass(frozen=True)
class Workshop:
    """Where models are kept, and who is told."""

    store: ObjectStore
    progress: Reporter
    wandb_folder: Path

    @classmethod
    def here(cls, progress: Reporter) -> "Workshop":
        """The store that the settings name; W&B's own files lie in the home."""
        from services.runtime.object_store.opening import open_store
        from services.runtime.settings import RuntimeSettings, load

        runtime = load(RuntimeSettings)
        return cls(open_store(runtime), progress, runtime.home / "wandb")


def train(order: Order, workshop: Workshop) -> ModelVersion:
    """Trains a new model and returns its best step; the same order again finds the model.

    Raises NotFoundError for an empty folder or an unknown preset, InvalidInputError if nothing can
    be read or the settings do not work.
    """
    corpus = recordings(order.folder)
    key = hashlib.sha256(
        orjson.dumps(
            [
                ALGORITHM,
                order.family,
                fingerprint(corpus),
                order.preset,
                order.seed,
                order.steps,
                dict(order.overrides or {}),
            ],
            option=orjson.OPT_SORT_KEYS,
        )
    ).hexdigest()
    marker = f"trained/{order.family}/{key}.json"
    models = ModelStore(workshop.store)
    if workshop.store.exists(marker):
        known = str(orjson.loads(workshop.store.read(marker))["id"])
        # The model may have been deleted since.
        with suppress(NotFoundError):
            version = models.find(order.family, known)
            workshop.progress.say(
                f"{order.family}: found {known}, trained on the same recordings before"
            )
            return version
    workshop.progress.say(f"{order.family}: reading {len(corpus)} recordings in {order.folder}")
    trainer, steps, figure = TRAINERS[order.family](order, workshop)
    plan = Fit(
        family=order.family,
        model_id=new_model_id(),
        corpus=storable(order.folder.resolve().name),
        steps=steps,
        figure=figure,
    )
    version = fit(trainer, plan, models, workshop.progress, workshop.wandb_folder)
    workshop.store.put(marker, orjson.dumps({"id": version.id}))
    return version


def new_model_id() -> str:
    """A fresh id, as W&B makes them: eight lower-case letters and digits."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))


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


def _clips(order: Order, workshop: Workshop, sample_rate_hertz: int) -> list[Any]:
    from services.synth.clips import Clip

    corpus = recordings(order.folder)
    return [
        Clip(recording.name, samples.clip(-1, 1))
        for recording, samples in readable(corpus, sample_rate_hertz, workshop.progress.say)
    ]


def _melgan(order: Order, workshop: Workshop) -> tuple[Trainer, int, str]:
    from services.synth.melgan.presets import preset
    from services.synth.melgan.training import MelGanTrainer

    settings = _overridden(preset(order.preset), order.overrides)
    steps = _steps(order)
    clips = _clips(order, workshop, settings.generator.mel.sample_rate_hertz)
    trainer = MelGanTrainer(settings, clips, device=_device(order.device), seed=order.seed)
    return trainer, steps, "mel_error"


def _unagan(order: Order, workshop: Workshop) -> tuple[Trainer, int, str]:
    from services.synth.unagan.presets import preset
    from services.synth.unagan.training import UnaganTrainer

    settings = _overridden(preset(order.preset), order.overrides)
    steps = _steps(order)
    clips = _clips(order, workshop, settings.networks.mel.sample_rate_hertz)
    for clip in clips:
        if not clip.samples.any():
            workshop.progress.say(f"left out: {clip.name} is silent")
    trainer = UnaganTrainer(settings, clips, device=_device(order.device), seed=order.seed)
    return trainer, steps, settings.validation_figure


def _predictor(order: Order, workshop: Workshop) -> tuple[Trainer, int, str]:
    from services.audio.track import DescriptorTrack
    from services.descriptor import mfcc
    from services.predictor.presets import preset
    from services.predictor.training import PredictorTrainer

    extraction = mfcc.ExtractionSettings()
    settings = _overridden(preset(order.preset), order.overrides)
    tracks = []
    corpus = recordings(order.folder)
    for recording, samples in readable(corpus, extraction.sample_rate_hertz, workshop.progress.say):
        values, _ = mfcc.extract(samples, extraction)
        track = DescriptorTrack(
            feature_names=mfcc.FEATURE_NAMES,
            values=values,
            sample_rate_hertz=extraction.sample_rate_hertz,
            hop_length_samples=extraction.hop_length,
            source=recording.name,
        )
        tracks.append(track)
        workshop.progress.update("describing recordings", len(tracks), len(corpus))
    trainer = PredictorTrainer(settings, tracks, device=_device(order.device), seed=order.seed)
    for name in trainer.corpus.too_short:
        workshop.progress.say(f"left out: {name} is too short for the window")
    return (
        trainer,
        order.steps or DEFAULT_STEPS.get((order.family, order.preset), trainer.total_steps),
        settings.validation_figure,
    )


TRAINERS: Mapping[str, Callable[[Order, Workshop], tuple[Trainer, int, str]]] = {
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
