"""`demiurge evaluate`: models judged by held-out recordings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.options import MAX_FILES, MAX_SEED, MAX_SOUND_SECONDS, MAX_STEPS, number

if TYPE_CHECKING:
    from services.cli.corpus import Corpus
    from services.runtime.model_store import ModelStore, ModelVersion
    from services.runtime.object_store.port import ObjectStore

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

ModelId = Annotated[str, typer.Argument(help="ID, for its best step, or ID@STEP.")]
Recorded = Annotated[
    Path | None,
    typer.Option(
        "--recorded",
        "--audio-db-dir",
        "--data-path",
        help="Folder of the recordings that it was trained on.",
    ),
]
Database = Annotated[
    str, typer.Option(help="Audio database of those recordings, in the place of a folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]


@app.callback()
def evaluate() -> None:
    """Judge a model by the recordings that were kept back from its training.

    Figures, card and a picture are kept with the model, in the place of former ones;
    `demiurge models` tells the chief figure. All runs here, over the store that DEMIURGE_STORE
    names.
    """


@app.command()
def melgan(
    model: ModelId,
    recorded: Recorded = None,
    database: Database = "",
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=MAX_SOUND_SECONDS, callback=number, help="Heard of each file."),
    ] = 5.0,
    seconds_in_all: Annotated[
        float,
        typer.Option(min=0.1, max=MAX_SOUND_SECONDS, callback=number, help="Heard altogether."),
    ] = 60.0,
    device: Device = "auto",
) -> None:
    """Judge a MelGAN: its copies of recordings beside Griffin-Lim's, from the same mels."""
    from services.synth.evaluation.copy_synthesis import CopySynthesis

    settings = CopySynthesis(seconds_each=seconds, seconds_in_all=seconds_in_all)
    _evaluate("melgan", model, recorded, database, device, settings)


@app.command()
def unagan(
    model: ModelId,
    recorded: Recorded = None,
    database: Database = "",
    melgan: Annotated[
        str, typer.Option(help="MelGAN that voices it; Griffin-Lim if not given.")
    ] = "",
    items: Annotated[int, typer.Option(min=1, max=MAX_FILES, help="Sounds to generate.")] = 16,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=MAX_SOUND_SECONDS, callback=number, help="Of each.")
    ] = 4.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED - MAX_FILES, help="Of the first; the others follow.")
    ] = 0,
    device: Device = "auto",
) -> None:
    """Judge an UNAGAN: the timbre of what it sings beside that of the recordings."""
    from services.synth.evaluation.generated_sound import GeneratedSound

    settings = GeneratedSound(items=items, seconds=seconds, seed=seed)
    _evaluate("unagan", model, recorded, database, device, settings, melgan)


@app.command()
def predictor(
    models: Annotated[
        list[str], typer.Argument(help="IDs, each for its best step, or ID@STEP.", metavar="ID...")
    ],
    recorded: Recorded = None,
    database: Database = "",
    unheard: Annotated[
        Path | None,
        typer.Option(
            help="Folder of other recordings, to judge all by in the place of those kept back. "
            "What is found is shown and written to --out, not kept with the models.",
        ),
    ] = None,
    places: Annotated[
        int, typer.Option(min=1, max=MAX_FILES, help="Places that are gone on from.")
    ] = 128,
    samples: Annotated[
        int,
        typer.Option(min=2, max=MAX_FILES, help="Of each place at temperature 1, if stochastic."),
    ] = 16,
    frames: Annotated[
        int,
        typer.Option(min=0, max=MAX_STEPS, help="Of long continuations at temperature 1."),
    ] = 2000,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED - MAX_FILES**2, help="Where all chance comes from.")
    ] = 0,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for table.md, figures.json and pictures of all.")
    ] = None,
) -> None:
    """Judge predictors, beside each other and beside baselines, by how they go on.

    The recordings that were kept back chose each model's best step and, maybe, its settings:
    --unheard judges by recordings that no training has heard. Of predictors of other packages or
    servers nobody knows what they heard: they are not judged.
    """
    from services.cli.beforehand import check_output
    from services.cli.corpus import folder_corpus
    from services.cli.evaluating_predictors import evaluate_predictors, refuse_heard
    from services.cli.progress import Progress
    from services.cli.training.record import Records
    from services.learning.array_cache import ArrayCache
    from services.learning.device import open_device
    from services.predictor.evaluation.ground import ComparisonSettings
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    _refuse_unless_one(recorded, database)
    runtime = load(RuntimeSettings)
    store = open_store(runtime)
    kept = ModelStore(store)
    chosen = str(open_device(device, "--device"))
    versions = {each.version_id: each for each in (kept.find("predictor", id_) for id_ in models)}
    if out:
        check_output("--out", out)
    corpus = _corpus(store, recorded, database, descriptors=True)
    others = folder_corpus(unheard, descriptors=True) if unheard else None
    with Progress() as progress:
        if others:
            refuse_heard(others, corpus, list(versions.values()), Records(store), progress)
        table = evaluate_predictors(
            list(versions.values()),
            corpus,
            kept,
            ArrayCache(runtime.home / "cache"),
            ComparisonSettings(places=places, samples=samples, long_frames=frames, seed=seed),
            progress,
            device=chosen,
            out=out,
            unheard=others,
        )
    typer.echo(table)


def _corpus(
    store: "ObjectStore", recorded: Path | None, database: str, *, descriptors: bool = False
) -> "Corpus":
    """The recordings of the folder or of the database, whichever is given."""
    from services.cli.corpus import database_corpus, folder_corpus

    if recorded:
        return folder_corpus(recorded, descriptors=descriptors)
    return database_corpus(store, database)


def _refuse_unless_one(recorded: Path | None, database: str) -> None:
    if (recorded is None) == (not database):
        raise typer.BadParameter("give either --recorded FOLDER or --database NAME")


def _evaluate(
    family: str,
    model: str,
    recorded: Path | None,
    database: str,
    device: str,
    settings: Any,
    melgan_id: str = "",
) -> None:
    from services.cli.corpus import prepared
    from services.cli.listing import columns
    from services.cli.progress import Progress
    from services.cli.training.judging import beside, judge_version
    from services.learning.array_cache import ArrayCache
    from services.learning.device import open_device
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    _refuse_unless_one(recorded, database)
    runtime = load(RuntimeSettings)
    store = open_store(runtime)
    models = ModelStore(store)
    chosen = str(open_device(device, "--device"))
    version = models.find(family, model)
    voice = _voice(models, version, melgan_id)
    corpus = _corpus(store, recorded, database)
    rate = int(version.config["mel"]["sample_rate_hertz"])
    with Progress() as progress:
        clips = prepared(corpus, rate, ArrayCache(runtime.home / "cache"), progress)
        judged = judge_version(
            version, clips, models, progress, device=chosen, melgan=voice, settings=settings
        )
    rows = beside(judged.figures)
    header = ("figure", judged.version_id, "Griffin-Lim")
    width = 3 if any(other for _, _, other in rows) else 2
    typer.echo(columns(header[:width], [row[:width] for row in rows]))


def _voice(models: "ModelStore", version: "ModelVersion", melgan_id: str) -> "ModelVersion | None":
    """The MelGAN, seen to fit before recordings are read."""
    from services.synth.generation.synthesizer import refuse_other_mels
    from services.synth.mel import MelSettings

    if not melgan_id:
        return None
    voice = models.find("melgan", melgan_id)
    own, its = (MelSettings.from_config(each.config["mel"]) for each in (version, voice))
    refuse_other_mels(own, its, version.version_id, voice.version_id)
    return voice
