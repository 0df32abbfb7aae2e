"""A whole run over a bucket: the same bytes as over a folder."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.notice import found, posted
from services.errors import ConflictError
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.settings import RuntimeSettings
from tests.conftest import OpenStack, sound, spec
from tests.servers.seaweed import Seaweed


def test_a_run_over_s3_makes_the_piece_that_a_folder_makes(
    open_stack: OpenStack, seaweed: Seaweed, tmp_path: Path
) -> None:
    location = seaweed.location()
    wanted = spec(files=2, frames=10)
    with open_stack(tmp_path / "a") as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        piece = stack.piece(wanted)
        keys = set(stack.store.keys("runs/"))
    with open_stack(tmp_path / "b", store=location, environment=seaweed.environment) as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        assert stack.piece(wanted) == piece
        assert set(stack.store.keys("runs/")) == keys
    with open_stack(tmp_path / "c", store=location, environment=seaweed.environment) as stack:
        assert stack.piece(wanted) == piece


def test_doctor_says_whether_the_bucket_is_reached(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = seaweed.location()
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_STORE", location)
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert f"{location}, reachable" in shown.output
    monkeypatch.setenv("DEMIURGE_S3_ENDPOINT", "http://127.0.0.1:9")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "does not answer" in shown.output


def test_services_over_a_bucket_are_found_by_commands_over_the_same_one(tmp_path: Path) -> None:
    def over(store: str) -> RuntimeSettings:
        return RuntimeSettings(home=tmp_path, store=store)

    runtime = over("s3://bucket/prefix")
    with embedded(list, embedded_settings(runtime), Metrics()) as server:
        address = f"127.0.0.1:{server.port}"
        with posted(tmp_path, address, runtime, lasting=False):
            notice = found(tmp_path, over("s3://bucket/prefix/"))
            assert notice
            assert notice.address == address
            with pytest.raises(ConflictError, match="s3://bucket/other"):
                found(tmp_path, over("s3://bucket/other"))
