"""What plain `demiurge doctor` tells of a store and of services elsewhere; it only looks."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import doctor
from services.cli.composition import build, open_ground
from services.cli.main import app
from services.runtime.embedding import embedded
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.conftest import Stack
from tests.servers.seaweed import Seaweed


def told(*options: str, exit_code: int = 0) -> str:
    done = CliRunner().invoke(app, ["doctor", *options])
    assert done.exit_code == exit_code, done.output
    return done.output


def test_looking_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))

    assert "none, there is no store yet" in told()
    assert "there is none yet" in told("--deep")
    assert list(tmp_path.iterdir()) == []


def test_looking_leaves_nothing_in_a_folder_that_is_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_STORE", str(tmp_path))

    told()

    assert list(tmp_path.iterdir()) == []


def test_looking_makes_no_bucket(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"never-made-{os.urandom(4).hex()}"
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)

    for location in (f"s3://{bucket}", f"s3://{bucket}/below"):
        monkeypatch.setenv("DEMIURGE_STORE", location)
        said = told()
        assert f"{location}, reachable; its bucket is made when it is first used" in said
        assert "none, there is no store yet" in said

    assert not seaweed.client().bucket_exists(bucket)


@pytest.mark.parametrize("attributes", [True, False])
def test_a_filesystem_without_extended_attributes_is_told_with_what_that_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: bool
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    FolderStore(tmp_path / "store")
    if not attributes:
        # As on systems that have none.
        monkeypatch.delattr(os, "setxattr")

    said = told()

    assert ("unknown hashes" in said) is not attributes
    assert ("no hashes are recorded there" in said) is not attributes


def test_services_elsewhere_are_asked_whether_they_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Stack
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", shared.address)
    monkeypatch.setenv("DEMIURGE_QUERY_ADDRESS", "127.0.0.1:1")

    said = " ".join(told(exit_code=1).split())

    assert f"ok gateway {shared.address}, ready" in said
    assert "missing query 127.0.0.1:1" in said
    assert "`demiurge serve query` runs there, or mend DEMIURGE_QUERY_ADDRESS" in said
    assert "runs there, or mend DEMIURGE_QUERY_ADDRESS; if it speaks TLS, set DEMIURGE_TLS" in said
    assert "ok index" not in said
    assert "ok token none is set, and none asked for by gateway" in said


@pytest.fixture(scope="module")
def deployed(
    trained_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RuntimeSettings]:
    """Settings of all services, which ask for a token; the models are in their store alone."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copytree(trained_models, folder / "store")
    (folder / "token").write_text("open-sesame")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMIURGE_QUERY_FOLDER", str(folder / "query"))
        runtime = RuntimeSettings(home=folder, token_file=folder / "token", port=0)
        ground = open_ground(runtime)
        with embedded(lambda: [build(noun, ground) for noun in NOUNS], runtime, ground.metrics) as (
            server
        ):
            ground.own_address = f"127.0.0.1:{server.port}"
            yield runtime.model_copy(update={"address": ground.own_address})


@pytest.fixture
def client(deployed: RuntimeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody whose services are all elsewhere."""
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_ADDRESS", deployed.address)
    monkeypatch.setenv("DEMIURGE_TOKEN_FILE", str(deployed.token_file))
    return tmp_path


@pytest.mark.usefixtures("client")
def test_the_models_and_the_store_of_services_elsewhere_are_theirs() -> None:
    said = " ".join(told().split())

    assert "ok token taken by gateway ok" in said
    assert "ok models 1 melgan, 1 unagan, 1 predictor, as the services list them" in said
    assert "ok store the services' own" in said


def test_a_store_that_is_set_is_looked_at_though_services_are_elsewhere(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_STORE", str(client))

    assert f"ok store {client}, " in " ".join(told().split())


def test_a_wrong_token_is_told_though_health_is_answered_without(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client / "wrong").write_text("wrong")
    monkeypatch.setenv("DEMIURGE_TOKEN_FILE", str(client / "wrong"))

    said = " ".join(told(exit_code=1).split())

    assert "missing token gateway: no valid bearer token" in said
    assert "-> let DEMIURGE_TOKEN_FILE name a file with the token that gateway was given" in said


def test_a_token_for_the_predictor_at_its_own_address_is_asked_about_by_itself(
    deployed: RuntimeSettings, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_PREDICTOR_ADDRESS", deployed.address)

    said = " ".join(told(exit_code=1).split())

    assert "missing token predictor: a bearer token is needed" in said
    assert "-> let DEMIURGE_PREDICTOR_TOKEN_FILE name" in said
    assert "ok token taken by gateway" in said
    assert client.exists()


@pytest.mark.usefixtures("client")
def test_a_file_of_a_token_that_is_not_there_is_to_be_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_TOKEN_FILE", "/not/there")

    said = " ".join(told(exit_code=1).split())

    assert "-> mend or unset DEMIURGE_TOKEN_FILE" in said
    assert "`demiurge serve" not in said


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of another noun: no packages of query, no checkout."""
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> object:
        return None if name.startswith(("qdrant_", "wandb")) else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)


@pytest.mark.usefixtures("bare", "client")
def test_packages_of_services_elsewhere_are_not_missed() -> None:
    said = told()

    assert "not installed" not in said
    assert "missing" not in said


@pytest.mark.usefixtures("bare")
def test_where_nothing_can_be_made_no_make_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))

    said = " ".join(told(exit_code=1).split())

    assert "missing query not installed: qdrant_edge, qdrant_client" in said
    assert "-> the image of query has it: set DEMIURGE_QUERY_ADDRESS to where it runs" in said
    assert "-> images of synth and predictor have it" in said
    assert "make install" not in said
