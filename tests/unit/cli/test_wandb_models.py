"""Models fetched from W&B: its real client against a server of ours on loopback."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import wandb
from typer.testing import CliRunner

from services.cli import wandb_models
from services.cli.main import app
from services.cli.published import read_folder
from services.cli.wandb_models import RunPath, run_path
from services.errors import (
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UntrustedCheckpointError,
)
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.servers.wandb import KEY, Artifact, Run, WandB

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def server() -> Iterator[WandB]:
    with WandB() as running:
        yield running


class Importer:
    """`demiurge import` into a store of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.models = ModelStore(FolderStore(folder / "store"))
        self.store, self.temporary = folder / "store", folder / "tmp"
        self.temporary.mkdir()

    def __call__(self, *arguments: str) -> str:
        """What is printed of an import that succeeds, and leaves nothing but the model."""
        done = CliRunner().invoke(app, ["import", *arguments], catch_exceptions=False)
        assert not self.left()
        return done.output

    def refused(self, error: type[DemiurgeError], path: str = "lab/demiurge/k3x9q1ab") -> str:
        """What is said of an import that leaves nothing at all."""
        with pytest.raises(error) as raised:
            CliRunner().invoke(app, ["import", f"wandb:{path}"], catch_exceptions=False)
        assert not list(self.store.rglob("config.json"))
        assert not self.left()
        return raised.value.message

    def left(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture
def importer(tmp_path: Path, server: WandB, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importer]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    settings = {"DEMIURGE_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)}
    for name, value in (server.environment | settings).items():
        monkeypatch.setenv(name, value)
    yield Importer(tmp_path)
    # W&B's client reads its settings once, and keeps a process beside ours.
    wandb.teardown()


def contents(folder: str, *names: str) -> dict[str, bytes]:
    return {name: (GOLDEN / folder / name).read_bytes() for name in names}


def published(family: str) -> Run:
    """A run as the published trainings leave it; the run's config holds what no file does."""
    if family == "melgan":
        files = contents("melgan/gru", "netG.pt", "best_netG.pt")
        return Run({"sampling_rate": {"value": 44100}}, files={**files, "config.yaml": b"{}"})
    if family == "unagan":
        files = contents("unagan", "params.Generator.latest.torch", "mean.mel.npy", "std.mel.npy")
        config = json.loads((GOLDEN / "unagan" / "config.json").read_text())
        return Run({name: {"value": value} for name, value in config.items()}, files=files)
    files = contents("predictor/LSTM", "checkpoint.ckpt", "model_args.json")
    files |= contents("predictor", "data_stat.npz")
    return Run(files={f"experiments/lstm/{name}": content for name, content in files.items()})


@pytest.mark.parametrize(
    ("family", "folder"), [("melgan", "melgan/gru"), ("unagan", "unagan"), ("predictor", "")]
)
def test_a_published_run_gives_the_model_that_its_folder_does(
    family: str, folder: str, server: WandB, importer: Importer
) -> None:
    server.runs["k3x9q1ab"] = published(family)
    options = ("--checkpoint", "params.Generator.latest.torch") if family == "unagan" else ()
    assert importer("wandb:lab/demiurge/k3x9q1ab", *options) == f"{family} k3x9q1ab@0\n"
    model = importer.models.find(family, "k3x9q1ab")
    chosen = "params.Generator.latest.torch" if family == "unagan" else ""
    expected = read_folder(GOLDEN / (folder or "predictor/LSTM"), chosen)
    assert importer.models.read_weights(model) == expected.weights
    assert expected.config.items() <= model.config.items()
    assert "W&B run lab/demiurge/k3x9q1ab" in importer.models.read_card(model)


def test_only_what_belongs_to_a_model_is_fetched(server: WandB, importer: Importer) -> None:
    run = published("melgan")
    run.files["media/a.wav"] = b"sound"
    server.runs["k3x9q1ab"] = run
    assert importer("wandb:lab/demiurge/runs/k3x9q1ab", "--id", "mine") == "melgan mine@0\n"
    fetched = {path.rpartition("/")[2] for path in server.bytes_sent if "storage" in path}
    assert fetched == {"best_netG.pt"}


def own(family: str = "predictor", **changed: bytes) -> Artifact:
    """What a training of ours publishes."""
    weights = b"the weights"
    config = {"feature_names": ["mfcc0"], "weights_sha256": hashlib.sha256(weights).hexdigest()}
    files = {
        "model.safetensors": weights,
        "config.json": json.dumps(config).encode(),
        "card.md": b"# A model",
    }
    files |= {name.replace("_", "."): content for name, content in changed.items()}
    return Artifact(f"{family}-k3x9q1ab", "model", {"family": family, "step": 70}, files)


def test_a_model_of_ours_comes_back_as_it_was_published(server: WandB, importer: Importer) -> None:
    run = server.runs["k3x9q1ab"] = Run()
    server.artifact(run, own(card_md=b"# The former"))
    server.artifact(run, own())
    assert importer("wandb:lab/demiurge/k3x9q1ab") == "predictor k3x9q1ab@70\n"
    model = importer.models.find("predictor", "k3x9q1ab")
    assert importer.models.read_weights(model) == b"the weights"
    assert importer.models.read_card(model) == "# A model"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model_safetensors": b"others"}, "model.safetensors: damaged"),
        ({"train_py": b"print()"}, "should hold model.safetensors, config.json and card.md"),
    ],
)
def test_an_artifact_that_is_no_model_of_ours_is_refused(
    changed: Mapping[str, bytes], told: str, server: WandB, importer: Importer
) -> None:
    run = server.runs["k3x9q1ab"] = Run()
    server.artifact(run, own(**changed))
    error = CorruptObjectError if "damaged" in told else InvalidInputError
    assert told in importer.refused(error)


@pytest.mark.parametrize("path", ["lab/demiurge/unknown1", "lab/other/k3x9q1ab"])
def test_a_run_that_is_not_there_is_named(path: str, server: WandB, importer: Importer) -> None:
    server.runs["k3x9q1ab"] = Run()
    told = importer.refused(NotFoundError, path)
    assert told.startswith(f"wandb:{path}: W&B has no such run")


def test_a_run_without_a_model_is_told_what_would_be_one(server: WandB, importer: Importer) -> None:
    server.runs["k3x9q1ab"] = Run(files={"../netG.pt": b"", "output.log": b""})
    told = importer.refused(InvalidInputError)
    assert "wandb:lab/demiurge/k3x9q1ab holds no model: neither netG.pt" in told


def test_a_checkpoint_of_several_is_chosen_before_any_is_fetched(
    server: WandB, importer: Importer
) -> None:
    server.runs["k3x9q1ab"] = Run(files={"epoch=1.ckpt": b"", "epoch=2.ckpt": b""})
    told = importer.refused(InvalidInputError)
    assert "choose one by --checkpoint (epoch=1.ckpt, epoch=2.ckpt)" in told


@pytest.mark.parametrize("key", ["f" * 40, "short", KEY])
def test_a_key_that_is_refused_is_told_of(
    key: str, server: WandB, importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.runs["k3x9q1ab"] = Run()
    server.forbidden.add("k3x9q1ab")
    monkeypatch.setenv("WANDB_API_KEY", key)
    told = importer.refused(UnauthenticatedError)
    assert "W&B does not let this key in" in told
    assert "set WANDB_API_KEY" in told
    assert key not in told


def test_nobody_is_asked_for_a_key_where_there_is_none(
    server: WandB, importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.runs["k3x9q1ab"] = Run()
    monkeypatch.delenv("WANDB_API_KEY")
    assert "set WANDB_API_KEY" in importer.refused(UnauthenticatedError)


@pytest.mark.parametrize("hanging", ["/graphql", "/storage"])
def test_a_server_that_does_not_answer_is_given_up(
    hanging: str, server: WandB, importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "SECONDS_TO_ANSWER" if hanging == "/graphql" else "SECONDS_OF_SILENCE"
    monkeypatch.setattr(wandb_models, name, 1)
    server.runs["k3x9q1ab"] = published("melgan")
    server.hanging = hanging
    told = importer.refused(UnavailableError)
    assert f"W&B at {server.url} does not answer" in told
    assert "check WANDB_BASE_URL" in told


def test_nobody_at_the_address_is_told_of(
    importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_models, "SECONDS_TO_ANSWER", 1)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert "W&B at http://127.0.0.1:9 does not answer" in importer.refused(UnavailableError)


def test_a_file_that_is_too_large_is_not_fetched(server: WandB, importer: Importer) -> None:
    server.runs["k3x9q1ab"] = published("melgan")
    server.told["best_netG.pt"] = 3 * 1024**3
    assert "best_netG.pt has 3.0 GiB" in importer.refused(InvalidInputError)
    assert not [path for path in server.bytes_sent if path.startswith("/storage")]


def test_a_file_of_another_size_than_told_is_not_taken(server: WandB, importer: Importer) -> None:
    server.runs["k3x9q1ab"] = published("melgan")
    server.told["best_netG.pt"] = 10
    told = importer.refused(UnavailableError)
    assert "bytes of best_netG.pt came, not 10" in told


def test_a_checkpoint_that_would_run_code_is_refused(server: WandB, importer: Importer) -> None:
    run = published("melgan")
    run.files["best_netG.pt"] = b"cos\nsystem\n(S'echo'\ntR."
    server.runs["k3x9q1ab"] = run
    told = importer.refused(UntrustedCheckpointError)
    assert "os.system" in told
    assert "may run code" in told


def test_a_run_is_named_by_three_names() -> None:
    expected = RunPath("our-lab", "demiurge", "k3x9q1ab")
    assert run_path("wandb:our-lab/demiurge/k3x9q1ab") == expected
    assert run_path("wandb:our-lab/demiurge/runs/k3x9q1ab") == expected
    assert run_path("folder") is None
    for wrong in ("wandb:", "wandb:demiurge/k3x9q1ab", "wandb:a/b/c/d", "wandb:a//c"):
        with pytest.raises(InvalidInputError, match="names no run"):
            run_path(wrong)
