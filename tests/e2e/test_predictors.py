"""Pieces by every kind of predictor: trained here, brought by a package, and served by others."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from services.audio.track import DescriptorTrack
from services.descriptor import mfcc
from services.gateway.run_store import RunStore
from services.predictor.loading import ARCHITECTURES
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.trainer import PredictorTrainer
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.conftest import RATE, samples
from tests.e2e.processes import free_port, ready
from tests.e2e.workspace import Workspace, furnish, wait_until
from tests.packages import WALKER, built_and_installed

SERVER = Path(__file__).parents[2] / "examples" / "predictor" / "server.py"
HOP = 1024
FRAMES = 13
DRAWS = "ProbabilisticTransformer"
CALL = ("run", "--recorded", "recorded", "--direct", "--prediction", "prediction")


def train(models: ModelStore) -> None:
    """A narrow model of each architecture under its name, trained for three steps."""
    values, _ = mfcc.extract(samples(2.0, 9), mfcc.ExtractionSettings())
    track = DescriptorTrack(mfcc.FEATURE_NAMES, values, RATE, HOP, "9.wav")
    for name in ARCHITECTURES:
        settings = PredictorTraining(
            selected_model=name,
            window_size=10,
            forecast_size=4,
            hidden_size=20,
            num_layers=1,
            dim_feedforward=16,
            batch_size=4,
        )
        trainer = PredictorTrainer(settings, [track], device="cpu", seed=1)
        for _ in range(3):
            trainer.step()
        weights, config = trainer.weights(), trainer.config()
        models.save("predictor", name, 3, weights=weights, config=config, card="", best=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with all models and a plug-in while `demiurge up` runs."""
    folder = tmp_path_factory.mktemp("predictors")
    work = furnish(folder)
    train(ModelStore(FolderStore(work.home / "store")))
    packages = folder / "packages"
    entries = {"walk": "wayfarers:Walker"}
    built_and_installed(folder / "project", packages, "wayfarers", entries, WALKER)
    given = work.given(PYTHONPATH=str(packages))
    with given.up():
        yield given


@pytest.fixture(scope="module")
def described(served: Workspace) -> str:
    """A file of descriptors to be continued, from the workspace's folder."""
    served.output("extract", "prediction", "--out", "descriptors")
    return "descriptors/tabla.wav.json"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of the example of somebody's own predictor, in a process of its own."""
    port = free_port()
    # Every address of this machine: not all of them are allowed.
    settings = {"ADDRESS": f"0.0.0.0:{port}", "WINDOW_FRAMES": "48"}
    with (tmp_path_factory.mktemp("elsewhere") / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, SERVER], env=os.environ | settings, stdout=log, stderr=log
        )
        try:
            wait_until(lambda: ready(f"127.0.0.1:{port}") or process.poll() is not None)
            assert process.poll() is None, Path(log.name).read_text()
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def piece(place: Workspace, out: str, *options: str) -> tuple[bytes, float]:
    """The piece that the command makes, made anew, and the temperature that it was made with."""
    done = place.run(*CALL, "--duration", "0.3", "--out", out, *options)
    assert done.returncode == 0, done.stderr
    found = re.search(r"run-\w+", done.stderr)
    assert found
    runs = RunStore(FolderStore(place.home / "store"))
    temperature = runs.request(found.group()).spec.prediction.temperature
    runs.delete(found.group())
    path = place.folder / out / "piece.wav"
    assert soundfile.info(str(path)).frames == FRAMES * HOP
    return path.read_bytes(), temperature


@pytest.mark.parametrize("architecture", sorted({*ARCHITECTURES} - {DRAWS}))
def test_a_piece_by_a_deterministic_predictor_is_made_without_temperature(
    served: Workspace, architecture: str
) -> None:
    _, temperature = piece(served, architecture, "--predictor", architecture)
    assert temperature == 0


@pytest.mark.parametrize("predictor", [DRAWS, "walk"])
def test_a_piece_by_a_predictor_that_draws_is_warm_and_follows_the_seed(
    served: Workspace, predictor: str
) -> None:
    first, temperature = piece(served, "first", "--seed", "1", "--predictor", predictor)
    again, _ = piece(served, "again", "--seed", "1", "--predictor", predictor)
    other, _ = piece(served, "other", "--seed", "2", "--predictor", predictor)
    assert temperature == 1
    assert again == first
    assert other != first


def test_a_temperature_is_refused_by_name_where_nothing_is_drawn(served: Workspace) -> None:
    call = (*CALL, "--predictor", "LSTM", "--temperature", "0.5", "--out", "warm")
    said = served.run(*call).stderr.splitlines()[-1]
    assert "predictor 'LSTM' is deterministic: temperature must be 0" in said


def test_a_plugin_is_listed_and_predicts(served: Workspace, described: str) -> None:
    listed = served.output("models")
    assert re.search(r"predictor +walk +1\.2\.0-[0-9a-f]{8} +RandomWalk, window 4 ", listed)
    call = ("predict", described, "--predictor", "walk", "--steps", "5")
    told = [
        (served.folder / served.output(*call, *more)).read_bytes()
        for more in ((), ("--seed", "0", "--temperature", "1"), ("--seed", "3"))
    ]
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_a_plugin_serves_where_nothing_else_runs(served: Workspace, tmp_path: Path) -> None:
    alone = furnish(tmp_path).given(**served.settings)
    assert alone.run(*CALL, "--duration", "0.3", "--predictor", "walk").returncode == 0
    none = alone.given(DEMIURGE_PREDICTOR_PLUGINS="none")
    assert "--predictor: no predictor model 'walk'" in none.refusal(*CALL, "--predictor", "walk")


def test_a_piece_may_be_by_a_predictor_elsewhere_for_once_or_always(
    served: Workspace, elsewhere: str, tmp_path: Path
) -> None:
    call = ("--predictor", "recurrence", "--seed")
    once = piece(served, "once", *call, "1", "--predictor-address", elsewhere)
    other, _ = piece(served, "other", *call, "2", "--predictor-address", elsewhere)
    always = furnish(tmp_path).given(DEMIURGE_PREDICTOR_ADDRESS=elsewhere)
    assert piece(always, "always", *call, "1") == once
    assert once[1] == 1
    assert other != once[0]


def test_a_predictor_elsewhere_continues_descriptors(
    served: Workspace, described: str, elsewhere: str
) -> None:
    told = served.output(
        *("predict", described, "--predictor", "recurrence", "--steps", "7"),
        *("--predictor-address", elsewhere, "--out", "elsewhere.json"),
    )
    assert len(json.loads((served.folder / told).read_bytes())["mfcc38"]) == 7


@pytest.mark.parametrize(
    ("host", "predictor", "words"),
    [
        ("127.0.0.1", "nobody", "--predictor: no predictor 'nobody'; there is recurrence"),
        ("127.0.0.2", "recurrence", "DEMIURGE_GATEWAY_PREDICTOR_ADDRESSES"),
    ],
)
def test_what_cannot_be_at_an_address_is_told_in_one_line(
    served: Workspace, elsewhere: str, host: str, predictor: str, words: str
) -> None:
    address = f"{host}:{elsewhere.rpartition(':')[2]}"
    call = (*CALL, "--predictor", predictor, "--predictor-address", address, "--out", "none")
    done = served.run(*call)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
