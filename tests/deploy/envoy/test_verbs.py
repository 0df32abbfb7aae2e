"""Every verb works with one address and the token file, and nothing else set."""

import json
from pathlib import Path

import pytest

from services.runtime.settings import NOUNS
from tests.conftest import MELGAN, PREDICTOR, UNAGAN, sound
from tests.deploy.envoy.conftest import Front
from tests.e2e.processes import free_port
from tests.e2e.workspace import Workspace

CHOSEN = ("--unagan", UNAGAN, "--melgan", MELGAN, "--predictor", PREDICTOR)


@pytest.fixture(scope="module")
def place(front: Front, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "sounds").mkdir()
    (folder / "sounds" / "one.wav").write_bytes(sound(1.0, 3))
    settings = {
        "DEMIURGE_ADDRESS": front.proxy.address,
        "DEMIURGE_TOKEN_FILE": str(front.token_file),
    }
    return Workspace(folder, settings)


def test_the_steps_one_by_one_work_with_one_address(place: Workspace) -> None:
    place.output(
        *("generate", "--unagan", UNAGAN, "--melgan", MELGAN),
        *("--files", "2", "--duration", "0.5", "--seed", "7", "--out", "generated"),
    )
    place.output("index", "generated", "--collection", "songs")
    place.output("extract", "sounds", "--out", "descriptors")
    predicted = place.output(
        *("predict", "descriptors/one.wav.json", "--predictor", PREDICTOR),
        *("--steps", "20", "--out", "predicted.json"),
    )
    matched = place.output("match", predicted, "--collection", "songs", "--out", "matches.json")
    place.output("render", matched, "--out", "rendered")
    assert (place.folder / "rendered" / "piece.wav").exists()
    assert not place.home.exists()


def test_a_run_and_what_is_told_of_it_work_with_one_address(place: Workspace) -> None:
    call = ("run", "--prediction", "sounds", "--duration", "0.3", "--files", "1")
    place.output(*call, "--file-duration", "0.4", "--out", "made", *CHOSEN)
    run_id = place.output("runs").splitlines()[1].split()[0]
    assert json.loads(place.output("runs", "show", run_id))["state"] == "STATE_SUCCEEDED"
    assert PREDICTOR in place.output("models")
    assert not (place.home / "store").exists()


def test_without_models_the_variable_that_is_set_is_named(place: Workspace, front: Front) -> None:
    said = place.refusal("run", "--prediction", "sounds", "--recorded", "sounds")
    assert f"DEMIURGE_ADDRESS={front.proxy.address}" in said


def test_the_doctor_asks_each_service_behind_the_address(place: Workspace, front: Front) -> None:
    said = place.run("doctor").stdout
    for noun in NOUNS:
        assert f"{front.proxy.address}, ready" in said, noun
    assert said.count(f"{front.proxy.address}, ready") == len(NOUNS)


def test_an_address_where_nobody_is_is_named(place: Workspace) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    assert nowhere in place.given(DEMIURGE_ADDRESS=nowhere).refusal("runs")


def test_a_wrong_token_is_told_as_such(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    said = place.given(DEMIURGE_TOKEN_FILE=str(tmp_path / "wrong")).refusal("runs")
    assert "DEMIURGE_TOKEN_FILE" in said
