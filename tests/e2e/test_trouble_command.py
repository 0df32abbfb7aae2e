"""The command at a gateway that hangs or is not there: it waits for a while, and then says so."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MELGAN, PREDICTOR, UNAGAN
from tests.e2e.processes import Processes, free_port, running
from tests.e2e.trouble import furnish_store
from tests.e2e.workspace import Workspace, ended, furnish

slow = pytest.mark.slow
RUN = (
    *("run", "--prediction", "prediction", "--duration", "0.5", "--files", "12"),
    *("--file-duration", "0.5", "--unagan", UNAGAN, "--melgan", MELGAN, "--predictor", PREDICTOR),
)


@pytest.fixture(scope="module")
def processes(
    trained_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    from services.runtime.object_store.folder import FolderStore  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("processes")
    furnish_store(FolderStore(folder / "home" / "store"), trained_models)
    with running(folder, {}) as opened:
        yield opened


def client(processes: Processes, folder: Path) -> Workspace:
    """Where a composer works, far from the services."""
    return furnish(folder).given(DEMIURGE_GATEWAY_ADDRESS=processes.addresses["gateway"])


def said_until(process: "subprocess.Popen[str]", at: str) -> str:
    """What it says on standard error until a line holds `at`."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if at in line:
            return said
    raise AssertionError(f"it never came to {at!r}: {said}")


@pytest.mark.parametrize("verb", ["runs", pytest.param("run", marks=slow)])
def test_a_gateway_that_is_not_there_is_named(tmp_path: Path, verb: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    place = furnish(tmp_path).given(DEMIURGE_GATEWAY_ADDRESS=address)
    said = place.refusal(*(RUN if verb == "run" else (verb,)))
    assert said.startswith(f"demiurge: {address} cannot be reached: ")
    assert "see that it runs" in said


@slow
@pytest.mark.parametrize("verb", ["runs", "run"])
def test_a_gateway_that_hangs_is_named(processes: Processes, tmp_path: Path, verb: str) -> None:
    place = client(processes, tmp_path)
    processes.freeze("gateway")
    try:
        # Two minutes at most, as for any command.
        said = place.refusal(*(RUN if verb == "run" else (verb,)))
    finally:
        processes.thaw("gateway")
    assert said.startswith(f"demiurge: {processes.addresses['gateway']} ")


@slow
@pytest.mark.parametrize("seconds", [20, 60])
def test_a_run_that_is_followed_goes_on_when_its_gateway_no_longer_hangs(
    processes: Processes, tmp_path: Path, seconds: int
) -> None:
    process = client(processes, tmp_path).start(*RUN, "--seed", seconds)
    said_until(process, "generate: ")
    processes.freeze("gateway")
    time.sleep(seconds)
    processes.thaw("gateway")
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "piece" / "piece.wav").stat().st_size


@slow
def test_whoever_follows_a_run_is_told_that_its_gateway_stays_away(
    processes: Processes, tmp_path: Path
) -> None:
    process = client(processes, tmp_path).start(*RUN, "--seed", 3)
    said_until(process, "generate: ")
    processes.freeze("gateway")
    try:
        said = process.communicate(timeout=400)[1]
    finally:
        process.kill()
        processes.thaw("gateway")
    assert process.returncode == 1
    assert "waiting for the gateway: " in said
    assert "demiurge: the gateway was away for" in said.splitlines()[-1]
    assert "the same call again goes on with run" in said.splitlines()[-1]


@slow
def test_ctrl_c_leaves_a_gateway_that_hangs(processes: Processes, tmp_path: Path) -> None:
    process = client(processes, tmp_path).start(*RUN, "--seed", 4)
    said_until(process, "generate: ")
    processes.freeze("gateway")
    try:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        processes.thaw("gateway")
    assert process.returncode == 130
