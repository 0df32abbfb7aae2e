"""Evaluating predictors: those of the store beside the baselines, on what they all kept back."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.corpus import Corpus
from services.cli.progress import Reporter
from services.errors import InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.cli.training.record import Records
    from services.learning.array_cache import ArrayCache
    from services.predictor.evaluation.ground import ComparisonSettings


def refuse_heard(
    unheard: Corpus,
    corpus: Corpus,
    versions: Sequence[ModelVersion],
    records: "Records",
    reporter: Reporter,
) -> None:
    """Raises InvalidInputError, naming the first unheard recording that a training has heard.

    Contents are compared with those of `corpus`, and with what `records` tell of the trainings.
    """
    from services.cli.training.record import files_of

    heard = {
        sha256: f"{corpus.place}, as {name}" for name, sha256 in files_of(corpus, reporter).items()
    }
    for version in versions:
        # What was imported has no record.
        with suppress(NotFoundError):
            files = records.read(version.family, version.id).files
            heard |= {
                sha256: f"the recordings of {version.id}, as {name}"
                for name, sha256 in files.items()
            }
    for name, sha256 in files_of(unheard, reporter).items():
        if sha256 in heard:
            raise InvalidInputError(
                f"{name} is among {heard[sha256]}: take it out of the unheard ones", culprit=name
            )


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
    unheard: Corpus | None = None,
) -> str:
    """Compares predictors and keeps with each what was found; the table for the terminal.

    `out` is a folder for table.md, figures.json and the pictures of all together. What is found by
    `unheard` recordings is not kept with the models: their figures are those of what their
    trainings kept back. Raises what `compare_versions` and `described` raise.
    """
    from services.cli.comparison.found import compared, keep
    from services.cli.comparison.pictures import SHOWN, pictures
    from services.cli.comparison.table import Facts, as_json, markdown, terminal
    from services.cli.comparison.versions import compare_versions
    from services.cli.files import write_whole
    from services.cli.training.tracks import described
    from services.descriptor.mfcc import ExtractionSettings
    from services.predictor.evaluation.held_out import framing_of

    rate, hop = framing_of({version.version_id: version.config for version in versions})
    extraction = ExtractionSettings(rate, hop)
    tracks, others = (
        described(each.recordings, cache, reporter, extraction=extraction) if each else []
        for each in (corpus, unheard)
    )
    comparison = compare_versions(
        versions,
        tracks,
        models,
        settings,
        device=device,
        progress=lambda done, total: reporter.update("comparing predictors", done, total),
        unheard=others,
    )
    for version in versions if unheard is None else ():
        keep(version, compared(comparison, version.version_id), models)
    if out:
        facts = {
            version.version_id: Facts.of(
                version, models.read_card(version), models.read_weights(version)
            )
            for version in versions
        }
        told = (*comparison.remarks, SHOWN, markdown(comparison, facts))
        table = "\n\n".join(told)
        write_whole(out / "table.md", f"{table}\n".encode())
        write_whole(out / "figures.json", as_json(comparison, facts))
        for name, picture in pictures(comparison, facts).items():
            write_whole(out / name, picture)
    return terminal(comparison)
