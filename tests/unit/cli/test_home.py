from pathlib import Path

import pytest

from services.cli.listing import columns
from services.query.settings import QuerySettings
from services.runtime.settings import RuntimeSettings, load


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEMIURGE_HOME", "DEMIURGE_STORE", "DEMIURGE_QUERY_FOLDER"):
        monkeypatch.delenv(name, raising=False)


def test_one_variable_moves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", "~/music")
    assert load(RuntimeSettings).store == str(Path.home() / "music" / "store")
    assert load(QuerySettings).folder == Path.home() / "music" / "query"


def test_without_it_everything_is_below_one_hidden_folder() -> None:
    assert load(RuntimeSettings).store == str(Path.home() / ".demiurge" / "store")
    assert load(QuerySettings).folder == Path.home() / ".demiurge" / "query"


def test_store_and_index_can_be_placed_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", "/music")
    monkeypatch.setenv("DEMIURGE_STORE", "/disk/store")
    monkeypatch.setenv("DEMIURGE_QUERY_FOLDER", "/ssd/index")
    assert load(RuntimeSettings).store == "/disk/store"
    assert load(QuerySettings).folder == Path("/ssd/index")


def test_columns_are_as_wide_as_their_widest_entry() -> None:
    assert columns(("id", "state"), [("run-0123", "done"), ("x", "running")]) == (
        "id        state\nrun-0123  done\nx         running"
    )
