"""Evaluating predictors: those of the store beside the baselines, on what they all kept back."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.corpus import Corpus
from services.cli.progress import Reporter
from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.learning.array_cache import ArrayCache
    from services.predictor.evaluation.comparison import Comparison
    from services.predictor.evaluation.ground import ComparisonSettings


def compare_versions(
    versions: Sequence[ModelVersion],
    tracks: "Sequence[DescriptorTrack]",
    models: ModelStore,
    settings: "ComparisonSettings",
    *,
    device: str,
    progress: Callable[[int, int], None],
) -> "Comparison":
    """Compares predictors, called by their version ids, on the tracks of their training.

    Raises NotFoundError if tracks that were kept back are missing, SettingsMismatchError, naming
    both sides, if the predictors do not fit each other or the tracks, and InvalidInputError if
    there is too little to compare by or one of them diverged.
    """
    from services.predictor.evaluation.comparison import compare
    from services.predictor.evaluation.ground import Contestant
    from services.predictor.evaluation.held_out import divided, refuse_other_tracks
    from services.predictor.loading import load_predictor

    configs = {version.version_id: version.config for version in versions}
    refuse_other_tracks(configs, tracks)
    material = divided(configs, tracks)
    contestants = [
        Contestant(
            version.version_id,
            load_predictor(version.config, models.read_weights(version), device=device),
            tells_statics=version.config.get("deltas") == "computed" or not material.has_deltas,
        )
        for version in versions
    ]
    return compare(contestants, material, settings, progress=progress)


def evaluate_predictors(
    versions: Sequence[ModelVersion],
    corpus: Corpus,
    models: ModelStore,
    cache: "ArrayCache",
    settings: "ComparisonSettings",
    reporter: Reporter,
    *,
    device: str,
    out: Path | None = None,
) -> str:
    """Compares predictors and keeps with each what was found; the table for the terminal.

    `out` is a folder for table.md, figures.json and the pictures of all together. Raises what
    `compare_versions` and `described` raise.
    """
    from services.cli.comparison_pictures import pictures
    from services.cli.comparison_table import Facts, as_json, markdown, terminal
    from services.cli.files import write_whole
    from services.cli.training.judging import compared, keep
    from services.cli.training.tracks import described
    from services.descriptor.mfcc import ExtractionSettings
    from services.predictor.evaluation.held_out import framing_of

    rate, hop = framing_of({version.version_id: version.config for version in versions})
    extraction = ExtractionSettings(rate, hop)
    tracks = described(corpus.recordings, cache, reporter, extraction=extraction)
    comparison = compare_versions(
        versions,
        tracks,
        models,
        settings,
        device=device,
        progress=lambda done, total: reporter.update("comparing predictors", done, total),
    )
    for version in versions:
        keep(version, compared(comparison, version.version_id), models)
    if out:
        facts = {
            version.version_id: Facts.of(
                version, models.read_card(version), models.read_weights(version)
            )
            for version in versions
        }
        table = "\n\n".join([*comparison.remarks, markdown(comparison, facts)])
        write_whole(out / "table.md", f"{table}\n".encode())
        write_whole(out / "figures.json", as_json(comparison, facts))
        for name, picture in pictures(comparison).items():
            write_whole(out / name, picture)
    return terminal(comparison)
