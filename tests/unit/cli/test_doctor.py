"""What plain `demiurge doctor` tells of a store, and that it only looks."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.runtime.object_store.folder import FolderStore
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
    assert "ok index" not in said
