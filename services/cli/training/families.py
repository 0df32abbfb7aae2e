"""The three families: their settings, and their trainers made from recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from services.cli.corpus import Corpus, prepared
from services.cli.progress import Reporter
from services.cli.training.trainer import Trainer

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.learning.array_cache import ArrayCache
    from services.learning.world import World
    from services.synth.corpus.clips import Clip


@dataclass(frozen=True)
class Site:
    """Where a training happens."""

    corpus: Corpus
    device: str
    world: "World"
    cache: "ArrayCache"
    reporter: Reporter


@dataclass(frozen=True)
class Made:
    """A trainer, and what belongs to it."""

    trainer: Trainer
    figure: str
    """The validation figure, the smaller the better, that `best` is chosen by."""
    steps: int | None = None
    """How long it is to be trained, if that follows from the recordings."""
    sounds: "Sequence[Clip] | Sequence[DescriptorTrack]" = ()
    """What the best version is to be judged by."""
    patience: int = 0
    """Validations in a row without a better figure that end it; 0 means that none do."""


def settings_class(family: str) -> type[Any]:
    """The dataclass of a family's settings."""
    if family == "melgan":
        from services.synth.melgan.training_settings import MelGanTraining

        return MelGanTraining
    if family == "unagan":
        from services.synth.unagan.training_settings import UnaganTraining

        return UnaganTraining
    from services.predictor.training.settings import PredictorTraining

    return PredictorTraining


def preset(family: str, name: str, architecture: str | None = None) -> Any:
    """Named settings, a predictor's of an architecture; NotFoundError naming those there are."""
    if family == "melgan":
        from services.synth.melgan import presets as melgan

        return melgan.preset(name)
    if family == "unagan":
        from services.synth.unagan import presets as unagan

        return unagan.preset(name)
    from services.predictor.training import presets as predictor

    return predictor.preset(name, architecture)


def make(family: str, settings: Any, seed: int, site: Site) -> Made:
    """The trainer of these settings, on recordings that it reads.

    Raises InvalidInputError if nothing can be read or learned from.
    """
    return TRAINERS[family](settings, seed, site)


@contextmanager
def first_on_its_machine(world: "World") -> Iterator[None]:
    """One process of each machine fills the cache, and then the others find all in it."""
    if world.local_rank:
        world.wait()
    try:
        yield
    finally:
        # After an error too, which the others then meet themselves.
        if not world.local_rank:
            world.wait()


def _melgan(settings: Any, seed: int, site: Site) -> Made:
    from services.synth.melgan.training import MelGanTrainer

    rate = settings.generator.mel.sample_rate_hertz
    with first_on_its_machine(site.world):
        clips = prepared(site.corpus, rate, site.cache, site.reporter)
    trainer = MelGanTrainer(settings, clips, device=site.device, seed=seed, world=site.world)
    return Made(trainer, "mel_error", settings.steps, clips)


def _unagan(settings: Any, seed: int, site: Site) -> Made:
    from services.synth.unagan.training import UnaganTrainer

    rate = settings.networks.mel.sample_rate_hertz
    with first_on_its_machine(site.world):
        clips = prepared(site.corpus, rate, site.cache, site.reporter)
        # It prepares mels.
        trainer = UnaganTrainer(
            settings,
            clips,
            device=site.device,
            seed=seed,
            world=site.world,
            cache=site.cache,
            tell=partial(site.reporter.update, "preparing mels"),
        )
    return Made(trainer, settings.validation_figure, settings.steps, clips)


def _predictor(settings: Any, seed: int, site: Site) -> Made:
    from services.cli.training.tracks import described
    from services.descriptor.mfcc import ExtractionSettings
    from services.predictor.training.trainer import PredictorTrainer

    extraction = ExtractionSettings(settings.sr, settings.hop_length)
    with first_on_its_machine(site.world):
        tracks = described(site.corpus.recordings, site.cache, site.reporter, extraction=extraction)
    trainer = PredictorTrainer(settings, tracks, device=site.device, seed=seed, world=site.world)
    for name in trainer.corpus.too_short:
        site.reporter.say(f"left out: {name} is too short for the window")
    return Made(trainer, settings.validation_figure, trainer.total_steps, tracks, settings.patience)


TRAINERS: Mapping[str, Callable[[Any, int, Site], Made]] = {
    "melgan": _melgan,
    "unagan": _unagan,
    "predictor": _predictor,
}
