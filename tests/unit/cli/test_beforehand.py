from collections.abc import Mapping
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import soundfile
from demiurge.predictor.v1.predictor_service_pb2 import GetPredictorResponse
from demiurge.predictor.v1.predictor_service_pb2_grpc import (
    PredictorServiceServicer,
    add_PredictorServiceServicer_to_server,
)
from typer.testing import CliRunner

from services.cli.beforehand import check_models
from services.cli.main import app
from services.errors import ConfigurationError, DemiurgeError, NotFoundError, UnavailableError
from services.runtime.settings import RuntimeSettings, load
from tests.contract.gateways import free_port
from tests.packages import unpacked


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


def test_a_predictor_of_another_package_is_known_if_it_works(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(place / "packages", "vagrants", {"walk": "vagrants:Walker"})
    unpacked(place / "packages", "vagrants-b", {"broken": "vagrants_b:Walker"}, "import nothing_so")
    monkeypatch.syspath_prepend(str(place / "packages"))
    runtime = load(RuntimeSettings)

    check_models({"predictor": "walk"}, runtime)
    with pytest.raises(ConfigurationError, match=r"vagrants-b 1\.2\.0 cannot be used.*nothing_so"):
        check_models({"predictor": "broken"}, runtime)
    monkeypatch.setenv("DEMIURGE_PREDICTOR_PLUGINS", "none")
    with pytest.raises(NotFoundError, match="--predictor: no predictor model 'walk'"):
        check_models({"predictor": "walk"}, runtime)


@pytest.mark.usefixtures("place")
def test_a_predictor_at_an_address_is_asked_for_there_unless_the_gateway_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"{nobody} cannot be reached"):
        check_models({"predictor": "a"}, load(RuntimeSettings), nobody)
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", "lab:50051")
    check_models({"predictor": "a"}, load(RuntimeSettings), nobody)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("address", ["unix:/tmp/socket", "dns:///a:1", "somewhere", "a b:1"])
def test_what_is_no_address_is_refused_by_its_option(address: str) -> None:
    call = ("run", "--prediction", "sounds", "--predictor", "a", "--predictor-address", address)
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2
    assert "--predictor-address" in done.output
    assert "is not host:port" in done.output


@pytest.mark.usefixtures("place")
def test_an_address_is_of_no_use_without_an_id() -> None:
    told = refusal(**{"predictor-address": "localhost:1"}).message
    assert told.startswith("give --predictor, the id of one at --predictor-address")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("own", [False, True])
def test_a_predictor_elsewhere_is_not_sent_the_token_of_the_deployment(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Listener(PredictorServiceServicer):
        def GetPredictor(self, _: object, context: grpc.ServicerContext) -> GetPredictorResponse:  # noqa: N802
            heard.append(str(dict(context.invocation_metadata()).get("authorization", "")))
            return GetPredictorResponse()

    (tmp_path / "token").write_text("ours")
    monkeypatch.setenv("DEMIURGE_TOKEN_FILE", str(tmp_path / "token"))
    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_PredictorServiceServicer_to_server(Listener(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        if own:
            check_models({"predictor": "a"}, load(RuntimeSettings), address)
        else:
            monkeypatch.setenv("DEMIURGE_PREDICTOR_ADDRESS", address)
            check_models({"predictor": "a"}, load(RuntimeSettings))
    finally:
        server.stop(0).wait()
    assert heard == [""]
