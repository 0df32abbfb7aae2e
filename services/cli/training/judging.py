"""Judging a stored model by held-out recordings."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.cli.comparison.found import PICTURE, Found, keep
from services.cli.progress import Reporter
from services.cli.training.pictures import spectrogram_picture
from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.predictor.evaluation.ground import ComparisonSettings
    from services.synth.corpus.clips import Clip
    from services.synth.evaluation.copy_synthesis import CopySynthesis
    from services.synth.evaluation.generated_sound import GeneratedSound
    from services.synth.evaluation.judgement import Judgement

GRIFFIN_LIM = "griffin_lim_"
# Enough to see where a training has come; `demiurge evaluate` takes more.
SHORT_ITEMS, SHORT_SECONDS = 8, 3.0
SHORT_FRAMES, SHORT_SAMPLES, SHORT_ORDERS = 200, 4, (1, 2, 4, 8)
# Fewer where windows are long, which some models hear anew for each frame: a few seconds in all.
SHORT_PLACES, LEAST_PLACES, SHORT_HEARD_FRAMES = 16, 4, 1600


def judge_version(
    version: ModelVersion,
    sounds: "Sequence[Clip] | Sequence[DescriptorTrack]",
    models: ModelStore,
    reporter: Reporter,
    *,
    device: str = "cpu",
    melgan: ModelVersion | None = None,
    settings: "CopySynthesis | GeneratedSound | ComparisonSettings | None" = None,
) -> ModelVersion:
    """Judges a model and stores what was found beside it; the version, with figures.

    Its weights come from `models`, so that what is judged is what is kept.

    Args:
        version: what to judge; for a training its best step.
        sounds: all recordings of its training, as clips at its rate, for a predictor as tracks;
            which were kept back its config says.
        models: where figures, card and picture go: `ModelStore.describe`.
        reporter: told how far it has come.
        device: where the model runs.
        melgan: voice of an UNAGAN; Griffin-Lim where none is given.
        settings: how much is compared, of the family's kind; little if not given.

    Raises NotFoundError if recordings that were kept back are missing, InvalidInputError if they
    are silent or the model diverged, SettingsMismatchError if UNAGAN and MelGAN do not fit. A
    training that ends with one of these is whole all the same: say it and go on.
    """

    def progress(done: int, total: int) -> None:
        reporter.update(f"judging {version.family}", done, total)

    judge = JUDGES[version.family]
    return keep(version, judge(version, sounds, models, progress, device, melgan, settings), models)


def beside(figures: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(figure, value, Griffin-Lim's or "") by name, as people read them."""
    return [
        (
            name,
            f"{value:.4g}",
            f"{figures[other]:.4g}" if (other := GRIFFIN_LIM + name) in figures else "",
        )
        for name, value in sorted(figures.items())
        if not name.startswith(GRIFFIN_LIM)
    ]


def _table(figures: Mapping[str, float]) -> str:
    rows = beside(figures)
    compared = any(other for _, _, other in rows)
    header = ("figure", "this model", "Griffin-Lim") if compared else ("figure", "value")
    lines = [header, ("---",) * len(header), *(row[: len(header)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _melgan(
    version: ModelVersion,
    clips: "Sequence[Clip]",
    models: ModelStore,
    progress: Callable[[int, int], None],
    device: str,
    melgan: ModelVersion | None,  # noqa: ARG001 - an UNAGAN's
    settings: Any,
) -> Found:
    from services.synth.evaluation.copy_synthesis import judge_melgan
    from services.synth.evaluation.held_out import divided
    from services.synth.melgan.generator import load_generator

    _, held_out = divided(version.config, clips)
    generator, _ = load_generator(version.config, models.read_weights(version))
    return _heard(judge_melgan(generator.to(device), held_out, settings, progress=progress))


def _unagan(
    version: ModelVersion,
    clips: "Sequence[Clip]",
    models: ModelStore,
    progress: Callable[[int, int], None],
    device: str,
    melgan: ModelVersion | None,
    settings: Any,
) -> Found:
    from services.synth.evaluation.generated_sound import GeneratedSound, judge_unagan
    from services.synth.evaluation.held_out import divided
    from services.synth.melgan import generator as vocoder
    from services.synth.unagan import generator as singer

    training, held_out = divided(version.config, clips)
    unagan = singer.load_generator(version.config, models.read_weights(version)).to(device)
    voice = None
    if melgan:
        voice, _ = vocoder.load_generator(melgan.config, models.read_weights(melgan))
        voice = voice.to(device)
    judgement = judge_unagan(
        unagan,
        voice,
        training,
        held_out,
        settings or GeneratedSound(items=SHORT_ITEMS, seconds=SHORT_SECONDS),
        progress=progress,
        unagan_id=version.version_id,
        vocoder_id=f"MelGAN {melgan.version_id}" if melgan else "",
    )
    return _heard(judgement)


def _heard(judgement: "Judgement") -> Found:
    picture = spectrogram_picture(judgement.rows, judgement.seconds_per_frame)
    return Found(
        judgement.figures, judgement.remarks, _table(judgement.figures), {PICTURE: picture}
    )


def _predictor(
    version: ModelVersion,
    tracks: "Sequence[DescriptorTrack]",
    models: ModelStore,
    progress: Callable[[int, int], None],
    device: str,
    melgan: ModelVersion | None,  # noqa: ARG001 - an UNAGAN's
    settings: Any,
) -> Found:
    from services.cli.comparison.found import compared
    from services.cli.comparison.versions import compare_versions
    from services.predictor.evaluation.ground import ComparisonSettings

    fitting = SHORT_HEARD_FRAMES // int(version.config["window_frames"])
    settings = settings or ComparisonSettings(
        places=min(max(fitting, LEAST_PLACES), SHORT_PLACES),
        horizons=(1, 10, 100),
        frames=SHORT_FRAMES,
        long_frames=0,
        samples=SHORT_SAMPLES,
        novelty_windows=0,
        orders=SHORT_ORDERS,
    )
    comparison = compare_versions(
        [version], tracks, models, settings, device=device, progress=progress
    )
    return compared(comparison, version.version_id)


JUDGES: Mapping[str, Callable[..., Found]] = {
    "melgan": _melgan,
    "unagan": _unagan,
    "predictor": _predictor,
}
