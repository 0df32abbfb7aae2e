"""A theatre: the inputs of one small run, zygotes to play it in, and a table of the attacks."""

# ruff: noqa: PLC0415

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import sound, spec
from tests.survival.journal import Point
from tests.survival.stage import Remains, Theatre, Zygotes

AT_ONCE = 2
"""Scenes played at once: two processors."""


@dataclass
class Tally:
    """What was attacked, how often, and what came of it."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, attacked: str, outcome: str) -> None:
        """One attack."""
        self.rows[attacked, outcome] += 1


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table that docs/reliability.md quotes."""
    rows = config.stash[TALLY].rows
    if rows:
        terminalreporter.section("survival")
        for (attacked, outcome), times in sorted(rows.items()):
            terminalreporter.write_line(f"| {attacked} | {times} | {outcome} |")


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def zygotes() -> Iterator[Zygotes]:
    opened = Zygotes(AT_ONCE)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def theatre(
    zygotes: Zygotes, trained_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Theatre:
    """Two files to generate, two sounds to continue, distances on standardized frames."""
    from demiurge.query.v1.query_service_pb2 import Scaling

    from services.gateway.settings import GatewaySettings
    from services.runtime.object_store.folder import FolderStore

    inputs = tmp_path_factory.mktemp("inputs") / "inputs"
    shutil.copytree(trained_models, inputs / "store")
    store = FolderStore(inputs / "store")
    for seed in (1, 2):
        store.put(f"audio/prediction/{seed}.wav", sound(0.6, seed))
    wanted = spec(frames=20, files=2, seconds=0.3)
    wanted.matching.scaling = Scaling.SCALING_STANDARDIZED
    settings = {"DEMIURGE_GATEWAY_CONCURRENCY": "1"}
    if "lease_seconds" in GatewaySettings.model_fields:
        settings["DEMIURGE_GATEWAY_LEASE_SECONDS"] = "1"
    return Theatre(zygotes, inputs, wanted, settings)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed: its writes in order, what it left, and where it lies."""

    writes: list[Point]
    remains: Remains
    seconds: float
    folder: Path


@pytest.fixture(scope="session")
def undisturbed(theatre: Theatre, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    play = theatre.play(tmp_path_factory.mktemp("undisturbed") / "play")
    ended = play.once()
    assert ended.code == 0, ended.log
    remains = play.remains()
    seconds = remains.outcome["seconds"]
    assert remains.outcome["state"] == "STATE_SUCCEEDED", remains.outcome
    return Undisturbed(play.writes(), remains, seconds, play.folder)
