"""Demiurge's own predictors keep to the contract that others are held to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from services.cli.checks.check import Outcome
from services.cli.checks.inspection import inspected, subject_at
from services.cli.checks.subject import Limits
from services.cli.composition import Ground, build
from services.cli.main import app
from services.errors import UnavailableError
from services.predictor.config import PredictorConfig
from services.predictor.loading import ARCHITECTURES
from services.predictor.networks.network import NetworkShape
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import RuntimeSettings

LIMITS = Limits(answer_seconds=120, free_seconds=30, abandon_seconds=0.05)
# More than fit into one track.
LONG, SHORT = 7000, 400
WINDOW = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """A model of each architecture, of an id of its own, untrained."""
    store = FolderStore(tmp_path_factory.mktemp("predictors"))
    shape = NetworkShape(39, 40, 1, nhead=5, dim_feedforward=8, dim_pos_encoding=26)
    for architecture, network in ARCHITECTURES.items():
        torch.manual_seed(1)
        config = PredictorConfig(
            architecture=architecture,
            shape=shape,
            window_frames=WINDOW,
            forecast_frames=3,
            feature_names=tuple(sorted(f"mfcc{number}" for number in range(39))),
            means=tuple(float(number) for number in range(39)),
            standard_deviations=(10.0,) * 39,
            sample_rate_hertz=44100,
            hop_length_samples=1024,
        )
        weights = save(network(shape).state_dict())
        ModelStore(store).save(
            "predictor",
            architecture,
            3,
            weights=weights,
            config=config.to_json(),
            card="",
            best=True,
        )
    return store


def serving(store: FolderStore, max_steps: int, **given: object) -> Iterator[str]:
    """The address of the predictor service over that store; keywords are runtime settings."""
    settings = embedded_settings(RuntimeSettings(**given))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMIURGE_PREDICTOR_MAX_STEPS", str(max_steps))
        patch.setenv("DEMIURGE_PREDICTOR_DEVICE", "cpu")
        ground = Ground(settings, store, Metrics())
        with embedded(lambda: [build("predictor", ground)], settings, ground.metrics) as server:
            yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def short(store: FolderStore) -> Iterator[str]:
    yield from serving(store, SHORT)


@pytest.fixture(scope="module")
def long(store: FolderStore) -> Iterator[str]:
    yield from serving(store, LONG)


@pytest.fixture
def guarded(store: FolderStore, token: Path) -> Iterator[str]:
    yield from serving(store, SHORT, token_file=token)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("open-sesame")
    return file


def outcomes(address: str, predictor_id: str) -> dict[Outcome, dict[str, str]]:
    found: dict[Outcome, dict[str, str]] = {outcome: {} for outcome in Outcome}
    with open_blocking_channel(address, RuntimeSettings()) as channel:
        for result in inspected(subject_at(channel, predictor_id, LIMITS)):
            found[result.outcome][result.check.name] = f"{result.asked}: {result.came}"
    return found


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_of_ours_keeps_to_the_contract(short: str, architecture: str) -> None:
    found = outcomes(short, architecture)
    assert found[Outcome.FAILED] == {}
    stochastic = ARCHITECTURES[architecture].stochastic
    assert set(found[Outcome.SKIPPED]) == {
        "pieces",
        "temperature-refused" if stochastic else "seed",
    }


def test_long_answers_of_ours_keep_to_it_too(long: str) -> None:
    found = outcomes(long, "LSTM")
    assert found[Outcome.FAILED] == {}
    assert set(found[Outcome.SKIPPED]) == {"seed"}


def test_the_command_sends_the_token_that_is_meant_for_predictors(
    guarded: str, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("conformance", "predictor", guarded, "--predictor", "LSTM", "--free-within", "30")
    monkeypatch.setenv("DEMIURGE_TOKEN_FILE", str(token))
    refused = CliRunner().invoke(app, asked)
    assert isinstance(refused.exception, UnavailableError)
    assert "UNAUTHENTICATED" in refused.exception.message
    monkeypatch.setenv("DEMIURGE_PREDICTOR_TOKEN_FILE", str(token))
    monkeypatch.setenv("DEMIURGE_PREDICTOR_ADDRESS", guarded)
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
