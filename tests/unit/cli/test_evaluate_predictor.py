"""`demiurge evaluate predictor` on small trained models and a store of the test's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner, Result

from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.cli.comparison.found import HEADING
from services.cli.comparison.versions import compare_versions
from services.cli.corpus import folder_corpus
from services.cli.main import app
from services.cli.progress import Progress
from services.cli.training.judging import judge_version
from services.cli.training.record import Record, Records
from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.predictor.deltas import names_with_deltas, with_deltas
from services.predictor.evaluation.ground import ComparisonSettings
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.trainer import PredictorTrainer
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore

NAMES = names_with_deltas(tuple(f"mfcc{i}" for i in range(13)))
FEW = ("--places", "8", "--samples", "3", "--frames", "300", "--device", "cpu")
SMALL = PredictorTraining(
    window_size=20, hidden_size=8, num_layers=1, deltas="computed", validation_share=0.3
)
STOCHASTIC = replace(
    SMALL,
    selected_model="ProbabilisticTransformer",
    hidden_size=16,
    nhead=2,
    dim_feedforward=16,
    attention_frames=8,
    mixtures=2,
    dim_pos_encoding=0,
    validation_figure="nll",
)


def described(frames: int, seed: int) -> DescriptorTrack:
    """A track whose 13 coefficients wander."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((frames, 13))
    for i in range(1, frames):
        values[i] += 0.9 * values[i - 1]
    raw = with_deltas(values * 10 - 5).astype(np.float32)
    return DescriptorTrack(NAMES, raw, 44100, 1024, f"{seed}.wav")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    for seed in range(4):
        (folder / f"{seed}.json").write_bytes(write_tracks([described(400, seed)]))
    return folder


def tracks(count: int = 4) -> list[DescriptorTrack]:
    """As the folder's files are named in training."""
    return [
        replace(described(400, seed), source=f"{seed}.json: {seed}.wav") for seed in range(count)
    ]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_PORT", "0")
    return ModelStore(FolderStore(tmp_path / "home" / "store"))


def trained(
    models: ModelStore,
    name: str,
    settings: PredictorTraining = SMALL,
    *,
    seed: int = 1,
    heard: list[DescriptorTrack] | None = None,
) -> ModelVersion:
    trainer = PredictorTrainer(settings, heard or tracks(), device="cpu", seed=seed)
    for _ in range(2):
        trainer.step()
    overrides = {"window_size": 20, "selected_model": settings.selected_model}
    config = trainer.config() | {"preset": "demo-cpu", "overrides": overrides}
    card = f"# predictor {name}\n\nTrained on four, 2 steps, 7 s of training.\n"
    return models.save(
        "predictor", name, 2, weights=trainer.weights(), config=config, card=card, best=True
    )


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "predictor", *map(str, arguments)])


def error_of(done: Result) -> Any:
    return done.exception


def test_predictors_are_told_beside_baselines_and_keep_what_was_found(
    models: ModelStore, recorded: Path, tmp_path: Path
) -> None:
    trained(models, "follower")
    trained(models, "dreamer", STOCHASTIC)
    out = tmp_path / "out" / "table"
    done = evaluate("follower", "dreamer", "--recorded", recorded, *FEW, "--out", out)
    assert done.exit_code == 0, (done.output, done.exception)
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names == [
        "predictor",
        "follower@2",
        "dreamer@2",
        "dreamer@2, temperature 1",
        "persistence",
        "training mean",
        "linear autoregression",
        "linear autoregression, temperature 1",
        "direct linear forecast",
        "recordings of the training part",
    ]
    assert {path.name for path in out.iterdir()} == {
        "table.md",
        "figures.json",
        "trajectories.png",
        "errors.png",
        "spectra.png",
    }
    table = (out / "table.md").read_text()
    row, errors = [line for line in table.splitlines() if line.startswith("| follower@2 |")][:2]
    assert "| LSTM | demo-cpu, window_size 20 | 1 | 2 | 0.1 |" in row
    assert "| error at 100 | less than autoregression at 10 | less than" in table
    ordered = table[table.index("**Errors**") :]
    places = [
        ordered.index(f"\n| {title} |") for title in ("persistence", "follower@2", "dreamer@2")
    ]
    assert places == sorted(places)
    assert max(line.count("|") for line in table.splitlines()) <= 12
    told = orjson.loads((out / "figures.json").read_bytes())
    own, sampled = (
        {**each["figures"]}
        for each in told["predictors"]
        if each["name"] in {"follower@2", "dreamer@2"}
        if each["temperature"] == (each["name"] == "dreamer@2")
    )
    assert {"error_1", "error_10", "error_100", "static_error_10", "variance_ratio"} <= own.keys()
    assert f" | {own['error_100_below_autoregression']:.3f} | " in errors
    assert {"crps_10", "log_likelihood", "long_variance_ratio"} <= sampled.keys()
    # Kept with each: its own figures, and the baselines' errors beside them.
    kept = models.find("predictor", "follower")
    assert kept.figures["error_10"] == own["error_10"]
    assert "persistence_error_10" in kept.figures
    assert "sampled_log_likelihood" in models.find("predictor", "dreamer").figures
    card = models.read_card(kept)
    assert card.startswith("# predictor follower\n\nTrained on four")
    assert card.count(HEADING) == 1
    assert "dreamer" not in card
    assert set(models.pictures(kept)) == {"trajectories.png", "errors.png", "spectra.png"}


@pytest.fixture
def unheard(tmp_path: Path) -> Path:
    folder = tmp_path / "unheard"
    folder.mkdir()
    for seed in (10, 11):
        (folder / f"{seed}.json").write_bytes(write_tracks([described(400, seed)]))
    return folder


def test_recordings_that_no_training_has_heard_judge_without_touching_what_models_keep(
    models: ModelStore, recorded: Path, unheard: Path, tmp_path: Path
) -> None:
    trained(models, "one")
    out = tmp_path / "out"
    settings = ("--recorded", recorded, "--places", 4, "--samples", 2, "--out", out)
    remarks = []
    for more in ((), ("--unheard", unheard)):
        done = evaluate("one", *settings, *more)
        assert done.exit_code == 0, (done.output, done.exception)
        remarks.append(orjson.loads((out / "figures.json").read_bytes())["remarks"])
        if not more:
            before = models.find("predictor", "one")
    assert remarks[0][0].endswith("the best step was chosen by them.")
    assert remarks[1][0].endswith("that no training of these models has heard.")
    assert "of 2 held-out files" in remarks[1][1]
    assert models.find("predictor", "one") == before


def test_a_recording_that_a_training_has_heard_is_refused_by_name(
    models: ModelStore, recorded: Path, unheard: Path, tmp_path: Path
) -> None:
    version = trained(models, "one")
    (unheard / "again.json").write_bytes((recorded / "2.json").read_bytes())
    told = ("one", "--recorded", recorded, "--unheard", unheard, *FEW)
    error = error_of(evaluate(*told))
    assert isinstance(error, InvalidInputError)
    assert error.culprit == "again.json"
    assert "2.json" in error.message
    # The training's record knows recordings that --recorded has lost.
    (unheard / "again.json").write_bytes(write_tracks([described(300, 12)]))
    recording = folder_corpus(unheard, descriptors=True).recordings[-1]
    assert recording.name == "again.json"
    store = FolderStore(tmp_path / "home" / "store")
    record = Record(
        *("predictor", version.id, "demo-cpu", {}, {}, 0, 2, None, "lost", ""),
        files={"old.json": recording.sha256},
    )
    Records(store).begin(record)
    error = error_of(evaluate(*told))
    assert isinstance(error, InvalidInputError)
    assert "again.json is among the recordings of one, as old.json" in error.message


def test_the_same_again_is_the_same(models: ModelStore) -> None:
    version = trained(models, "dreamer", STOCHASTIC)
    settings = ComparisonSettings(places=4, samples=2, frames=100, long_frames=0)

    def figures(settings: ComparisonSettings) -> dict[str, float]:
        heard = tracks()
        compared = compare_versions(
            [version], heard, models, settings, device="cpu", progress=lambda _d, _t: None
        )
        return compared.figures_of("dreamer@2")

    assert figures(settings) == figures(settings)
    assert figures(settings) != figures(replace(settings, seed=1000))


def test_models_that_kept_back_other_files_are_not_compared(
    models: ModelStore, recorded: Path
) -> None:
    held = trained(models, "one").config["training"]["validation_files"]
    others = [replace(SMALL, validation_seed=seed) for seed in range(1, 20)]
    other = next(
        settings
        for settings in others
        if set(PredictorTrainer(settings, tracks(), device="cpu").corpus.held_out) != set(held)
    )
    trained(models, "other", other)
    error = error_of(evaluate("one", "other", "--recorded", recorded, *FEW))
    assert isinstance(error, SettingsMismatchError)
    assert "one@2 and other@2 kept back different recordings" in error.message


def test_models_of_other_hops_are_not_compared(models: ModelStore, recorded: Path) -> None:
    trained(models, "one")
    heard = [replace(track, hop_length_samples=512) for track in tracks()]
    trained(models, "other", heard=heard)
    error = error_of(evaluate("one", "other", "--recorded", recorded, *FEW))
    assert isinstance(error, SettingsMismatchError)
    assert "a hop of 1024" in error.message
    assert "a hop of 512" in error.message
    assert "other@2" in error.message
    error = error_of(evaluate("other", "--recorded", recorded, *FEW))
    assert isinstance(error, SettingsMismatchError)
    assert ".wav" in error.message


def test_a_recording_that_was_kept_back_must_be_there(
    models: ModelStore, recorded: Path, tmp_path: Path
) -> None:
    held = trained(models, "one").config["training"]["validation_files"][0]
    some = tmp_path / "some"
    some.mkdir()
    for path in recorded.iterdir():
        if not held.startswith(path.name):
            (some / path.name).write_bytes(path.read_bytes())
    error = error_of(evaluate("one", "--recorded", some, *FEW))
    assert isinstance(error, NotFoundError)
    assert error.culprit == held


def test_held_out_recordings_that_a_window_does_not_fit_into_are_told(models: ModelStore) -> None:
    version = trained(models, "one", replace(SMALL, window_size=390))
    held = version.config["training"]["validation_files"]
    short = [
        replace(track, values=track.values[: 385 if track.source in held else None])
        for track in tracks()
    ]
    with pytest.raises(InvalidInputError, match="385 frames, which leaves nothing"):
        judge_version(version, short, models, Progress(silent=True))


def test_a_training_ends_with_a_short_judgement(models: ModelStore) -> None:
    version = trained(models, "one")
    judged = judge_version(version, tracks(), models, Progress(silent=True))
    assert judged.figures["error_100"] > 0
    assert "linear_autoregression_error_100" in judged.figures
    assert models.find("predictor", "one").figures == judged.figures


def test_of_a_single_recording_the_end_is_judged(models: ModelStore) -> None:
    alone = tracks(1)
    version = trained(models, "one", heard=alone)
    judged = judge_version(version, alone, models, Progress(silent=True))
    assert judged.figures["error_1"] > 0
    # 120 frames of 400 were held out; a window of 20 leaves 100, of which half are foretold.
    assert "50 frames each" in models.read_card(judged)


def test_one_place_of_recordings_is_asked_for(models: ModelStore) -> None:
    trained(models, "one")
    done = evaluate("one", *FEW)
    assert done.exit_code == 2
    assert "either --recorded FOLDER or --database NAME" in done.output
    missing = error_of(evaluate("nobody", "--recorded", "."))
    assert isinstance(missing, NotFoundError)
    assert missing.culprit == "nobody"
