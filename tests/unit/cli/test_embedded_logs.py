import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import Run

from services.cli.connection import connect
from services.errors import InvalidInputError
from services.gateway.ends import conclude


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ends = logging.getLogger(), logging.getLogger("services.gateway.ends")
    before = (root.handlers, root.level, ends.level)
    yield
    root.handlers, root.level, ends.level = before


async def ended(error: Exception) -> Run:
    """A run whose work raised `error`."""

    async def work() -> None:
        raise error

    run, task = Run(id="run-1"), asyncio.create_task(work())
    await asyncio.wait([task])
    conclude(run, task, cancelled=False)
    return run


def test_services_of_a_commands_own_tell_of_defects_and_leave_other_failures_to_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    with connect("playback"):
        run = asyncio.run(ended(InvalidInputError("no such sound")))
        assert "no such sound" in run.failure.message
        assert capsys.readouterr().err == ""
        asyncio.run(ended(ZeroDivisionError("nobody foresaw this")))
        assert "nobody foresaw this" in capsys.readouterr().err
