"""Judging a stored model by held-out recordings."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.cli.progress import Reporter
from services.cli.training.pictures import spectrogram_picture
from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.synth.corpus.clips import Clip
    from services.synth.evaluation.copy_synthesis import CopySynthesis
    from services.synth.evaluation.generated_sound import GeneratedSound
    from services.synth.evaluation.judgement import Judgement

HEADING = "## Judged on held-out sound"
PICTURE = "spectrogram.png"
GRIFFIN_LIM = "griffin_lim_"
# Enough to see where a training has come; `demiurge evaluate` takes more.
SHORT_ITEMS, SHORT_SECONDS = 8, 3.0


def judge_version(
    version: ModelVersion,
    clips: "Sequence[Clip]",
    models: ModelStore,
    reporter: Reporter,
    *,
    device: str = "cpu",
    melgan: ModelVersion | None = None,
    settings: "CopySynthesis | GeneratedSound | None" = None,
) -> ModelVersion:
    """Judges a MelGAN or an UNAGAN and stores what was found beside it; the version, with figures.

    Its weights come from `models`, so that what is judged is what is kept. A predictor comes back
    as it is: it is judged by its own validation.

    Args:
        version: what to judge; for a training its best step.
        clips: all recordings of its training, at its rate; which were kept back its config says.
        models: where figures, card and picture go: `ModelStore.describe`.
        reporter: told how far it has come.
        device: where the model runs.
        melgan: voice of an UNAGAN; Griffin-Lim where none is given.
        settings: how much is compared, of the family's kind; little if not given.

    Raises NotFoundError if recordings that were kept back are missing, InvalidInputError if they
    are silent or the model diverged, SettingsMismatchError if UNAGAN and MelGAN do not fit. A
    training that ends with one of these is whole all the same: say it and go on.
    """
    if version.family not in JUDGES:
        return version

    def progress(done: int, total: int) -> None:
        reporter.update(f"judging {version.family}", done, total)

    judge = JUDGES[version.family]
    judgement = judge(version, clips, models, progress, device, melgan, settings)
    return models.describe(
        version,
        figures=judgement.figures,
        card=judged_card(models.read_card(version), judgement),
        pictures={PICTURE: spectrogram_picture(judgement.rows, judgement.seconds_per_frame)},
    )


def judged_card(card: str, judgement: "Judgement") -> str:
    """The card with what was found out at its end, in the place of what was found before."""
    before = card.partition(HEADING)[0].rstrip()
    remarks = "\n\n".join(judgement.remarks)
    section = f"{HEADING}\n\n{remarks}\n\n{_table(judgement.figures)}\n\n![Spectrograms]({PICTURE})"
    return f"{before}\n\n{section}\n".lstrip()


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
) -> "Judgement":
    from services.synth.evaluation.copy_synthesis import judge_melgan
    from services.synth.evaluation.held_out import divided
    from services.synth.melgan.generator import load_generator

    _, held_out = divided(version.config, clips)
    generator, _ = load_generator(version.config, models.read_weights(version))
    return judge_melgan(generator.to(device), held_out, settings, progress=progress)


def _unagan(
    version: ModelVersion,
    clips: "Sequence[Clip]",
    models: ModelStore,
    progress: Callable[[int, int], None],
    device: str,
    melgan: ModelVersion | None,
    settings: Any,
) -> "Judgement":
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
    return judge_unagan(
        unagan,
        voice,
        training,
        held_out,
        settings or GeneratedSound(items=SHORT_ITEMS, seconds=SHORT_SECONDS),
        progress=progress,
        unagan_id=version.version_id,
        vocoder_id=f"MelGAN {melgan.version_id}" if melgan else "",
    )


JUDGES = {"melgan": _melgan, "unagan": _unagan}
