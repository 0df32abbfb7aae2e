import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from services.cli.comparison.found import HEADING
from services.cli.main import app
from services.cli.models import chief_figure
from services.cli.training.judging import beside
from services.errors import InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.conftest import MELGAN, PREDICTOR, UNAGAN, sound

PNG = b"\x89PNG\r\n"
SHORT = ("--seconds", "0.3")
FEW = ("--items", "3", "--seconds", "0.3")


@pytest.fixture
def store(tmp_path: Path, trained_models: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """With a narrow model of each family; a command's store, too."""
    shutil.copytree(trained_models, tmp_path / "home" / "store")
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_PORT", "0")
    return FolderStore(tmp_path / "home" / "store")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """What those models were trained on."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.wav").write_bytes(sound(1.0, seed))
    return folder


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def error_of(done: Result) -> Any:
    return done.exception


def table(output: str) -> dict[str, list[str]]:
    return {row.split()[0]: row.split()[1:] for row in output.splitlines()}


def test_a_melgan_is_judged_beside_griffin_lim_and_keeps_what_was_found(
    store: FolderStore, recorded: Path
) -> None:
    models = ModelStore(store)
    done = evaluate("melgan", MELGAN, "--recorded", recorded, *SHORT, "--device", "cpu")
    assert done.exit_code == 0, done.output
    told = table(done.stdout)
    assert told["figure"] == [f"{MELGAN}@2", "Griffin-Lim"]
    version = models.find("melgan", MELGAN)
    assert version.figures["stft_distance"] == pytest.approx(
        float(told["stft_distance"][0]), rel=1e-3
    )
    assert version.figures["griffin_lim_stft_distance"] == pytest.approx(
        float(told["stft_distance"][1]), rel=1e-3
    )
    folder = f"models/melgan/{MELGAN}/2"
    assert store.read(f"{folder}/spectrogram.png").startswith(PNG)
    assert orjson.loads(store.read(f"{folder}/figures.json")) == version.figures
    card = models.read_card(version)
    assert "held-out recordings: 1, 0.3 s, the first 0.3 s of each" in card
    assert "| figure | this model | Griffin-Lim |\n| --- | --- | --- |\n| mel_error |" in card
    assert "![Spectrograms](spectrogram.png)" in card


def test_what_is_found_again_takes_the_place_of_what_was_found_before(
    store: FolderStore, recorded: Path
) -> None:
    models = ModelStore(store)
    version = models.find("melgan", MELGAN)
    store.put(f"models/melgan/{MELGAN}/2/card.md", b"# melgan voice\n\nOf two tones.\n")
    for seconds in ("0.5", "0.25"):
        done = evaluate("melgan", MELGAN, "--recorded", recorded, "--seconds", seconds)
        assert done.exit_code == 0, done.output
    card = models.read_card(version)
    assert card.startswith(f"# melgan voice\n\nOf two tones.\n\n{HEADING}\n\n")
    assert card.count(HEADING) == 1
    assert "0.2 s, the first 0.25 s of each" in card
    # The same again is the same, to the byte.
    before = {each.key: each.sha256 for each in store.list("models/")}
    evaluate("melgan", MELGAN, "--recorded", recorded, "--seconds", "0.25")
    assert {each.key: each.sha256 for each in store.list("models/")} == before


@pytest.mark.parametrize("voice", [(), ("--melgan", MELGAN)])
def test_an_unagan_is_judged_with_or_without_a_melgan(
    store: FolderStore, recorded: Path, voice: tuple[str, ...]
) -> None:
    done = evaluate("unagan", UNAGAN, *voice, "--recorded", recorded, *FEW)
    assert done.exit_code == 0, done.output
    told = table(done.stdout)
    version = ModelStore(store).find("unagan", UNAGAN)
    assert set(told) - {"figure"} == set(version.figures)
    assert told["frechet_items"] == ["3"]
    assert version.figures["frechet_distance_half_to_half"] > 0
    card = ModelStore(store).read_card(version)
    assert f"voiced by {'MelGAN voice@2' if voice else 'Griffin-Lim'}" in card
    assert store.read(f"models/unagan/{UNAGAN}/2/spectrogram.png").startswith(PNG)


def test_the_recordings_may_be_a_database(store: FolderStore, recorded: Path) -> None:
    for path in recorded.iterdir():
        store.put(f"audio/voices/{path.name}", path.read_bytes())
    from_folder = evaluate("melgan", MELGAN, "--recorded", recorded, *SHORT)
    from_database = evaluate("melgan", MELGAN, "--database", "voices", *SHORT)
    assert from_database.exit_code == 0, from_database.output
    assert from_database.stdout == from_folder.stdout
    done = evaluate("melgan", MELGAN, "--database", "others")
    assert isinstance(error_of(done), NotFoundError)
    for both in ((), ("--recorded", recorded, "--database", "voices")):
        done = evaluate("melgan", MELGAN, *both)
        assert done.exit_code == 2
        assert "either --recorded FOLDER or --database NAME" in done.output.replace("\n", " ")


def test_other_recordings_than_those_of_the_training_are_told(
    store: FolderStore, recorded: Path
) -> None:
    (held_out,) = ModelStore(store).find("melgan", MELGAN).config["training"]["validation_files"]
    (recorded / held_out).rename(recorded / "another.wav")
    error = error_of(evaluate("melgan", MELGAN, "--recorded", recorded))
    assert isinstance(error, NotFoundError)
    assert error.culprit == held_out
    assert "was kept back from this model's training, and is not among" in error.message
    assert ModelStore(store).find("melgan", MELGAN).figures == {}


def test_what_cannot_be_judged_is_told_before_anything_is_read(
    store: FolderStore, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    error = error_of(evaluate("melgan", "other", "--recorded", nowhere))
    assert isinstance(error, NotFoundError)
    assert "no melgan model 'other'; there are: voice" in error.message
    error = error_of(evaluate("unagan", UNAGAN, "--melgan", "other", "--recorded", nowhere))
    assert "no melgan model 'other'" in error.message
    error = error_of(evaluate("melgan", MELGAN, "--recorded", nowhere, "--device", "cuda:7"))
    assert isinstance(error, InvalidInputError)
    assert error.culprit == "--device"


def test_the_list_of_models_tells_how_each_was_judged(store: FolderStore, recorded: Path) -> None:
    evaluate("melgan", MELGAN, "--recorded", recorded, *SHORT)
    figures = ModelStore(store).find("melgan", MELGAN).figures
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 0, done.output
    rows = {row.split()[1]: row for row in done.stdout.splitlines()}
    ratio = figures["stft_distance"] / figures["griffin_lim_stft_distance"]
    assert rows[MELGAN].endswith(f"  STFT distance {ratio:.2f} x Griffin-Lim's")
    assert rows[UNAGAN].endswith("  64")
    assert PREDICTOR in rows


def test_the_chief_figure_is_a_ratio() -> None:
    assert chief_figure({}) == ""
    assert chief_figure({"stft_distance": 3.0}) == ""
    distances = {"frechet_distance": 300.0, "frechet_distance_half_to_half": 200.0}
    assert chief_figure(distances) == "Fréchet distance 1.50 x half to half"
    errors = {"error_10": 0.1, "linear_autoregression_error_10": 0.2, "error_100": 0.9}
    assert chief_figure(errors) == "error at 10 0.50 x linear autoregression's"
    errors["linear_autoregression_error_100"] = 0.75
    assert chief_figure(errors) == "error at 100 1.20 x linear autoregression's"
    assert chief_figure({"silent_share": 1.0, "frechet_distance_half_to_half": 2.0}) == "silent"


def test_figures_stand_beside_griffin_lim_s() -> None:
    figures = {"mel_error": 0.25, "griffin_lim_mel_error": 0.125, "items": 16.0}
    assert beside(figures) == [("items", "16", ""), ("mel_error", "0.25", "0.125")]
