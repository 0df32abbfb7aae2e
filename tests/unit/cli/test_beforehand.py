from collections.abc import Mapping
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import soundfile
from typer.testing import CliRunner

from services.cli.beforehand import check_models
from services.cli.main import app
from services.errors import DemiurgeError
from services.runtime.settings import RuntimeSettings, load


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder: with recordings, an empty folder and a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "a.wav", [0.0, 0.5] * 1000, 44_100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "afile").write_text("kept")
    return tmp_path


def refusal(**options: str | bool) -> DemiurgeError:
    """The error of `demiurge run` with these options."""
    given: Mapping[str, str | bool] = {"prediction": "sounds", "recorded": "sounds"} | options
    arguments = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in given.items()
        if value
    ]
    done = CliRunner().invoke(app, ["run", *arguments])
    assert isinstance(done.exception, DemiurgeError), done.output
    assert done.output == ""
    return done.exception


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"unagan": "nope"}, "--unagan: no unagan model 'nope'; there are: none"),
        ({"melgan": "nope"}, "--melgan: no melgan model 'nope'"),
        ({"predictor": "nope@3"}, "--predictor: no predictor model 'nope@3'"),
        ({"predictor": "nope@x"}, "--predictor: 'nope@x': the step is not a number"),
        ({"predictor": "nope", "direct": True}, "--predictor: no predictor model 'nope'"),
        ({"recorded": "nope"}, "--recorded: nope is not a folder: give one of recordings"),
        ({"recorded": "nope", "direct": True}, "--recorded: nope is not a folder"),
        ({"recorded": "empty"}, "--recorded: empty holds no sound files: put some in"),
        ({"prediction": "afile"}, "--prediction: afile is not a folder"),
        ({"out": "afile"}, "--out: afile is a file: give another folder"),
        ({"out": "afile/below"}, "--out: .*afile is a file: give another folder"),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_its_option_before_anything_is_done(
    place: Path, options: dict[str, str | bool], told: str
) -> None:
    error = refusal(**options)
    assert error.message.startswith("--")
    with pytest.raises(DemiurgeError, match=f"^{told}"):
        raise error
    assert [path for path in (place / "home").rglob("*") if path.is_file()] == []
    assert (place / "afile").read_text() == "kept"
    assert not (place / "piece").exists()


def test_a_folder_that_takes_no_files_is_told_of_before_anything_is_done(place: Path) -> None:
    # Not even the superuser writes there.
    error = refusal(out="/proc/piece", direct=True)
    assert error.message.startswith("--out: nothing can be written into /proc (")


@pytest.mark.usefixtures("place")
def test_who_has_a_gateway_elsewhere_hears_how_models_come_into_its_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", "lab:50051")
    told = refusal(predictor="known").message
    assert told.startswith("give --melgan, --unagan: ")
    assert "`demiurge models`" in told
    assert "DEMIURGE_STORE=s3://… (the deployment's) `demiurge train melgan" in told
    # Where the store is the deployment's, the reason would be untrue.
    assert "would not be found" not in told


@pytest.mark.usefixtures("place")
def test_a_gateway_with_nothing_beside_it_looks_at_ids_itself() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEMIURGE_GATEWAY_ADDRESS", f"127.0.0.1:{port}")
            check_models({"unagan": "a", "predictor": "b"}, load(RuntimeSettings))
    finally:
        server.stop(0).wait()
