"""Plug-ins as packages that lie in a folder of sys.path."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.errors import ConfigurationError, InvalidInputError
from services.predictor.plugins import installed_plugins
from tests.packages import WALKER, unpacked

numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages are installed; what was imported from there is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("walkers"):
            del sys.modules[name]


def test_a_package_brings_a_predictor_under_the_name_of_its_entry_point(folder: Path) -> None:
    unpacked(folder, "walkers", {"walk": "walkers:Walker"})
    plugin = installed_plugins()["walk"]
    assert "walkers" not in sys.modules
    predictor = plugin.construct()
    assert plugin.package == "walkers 1.2.0"
    window = np.zeros((4, 39), np.float32)
    told = [predictor.predict(window, 5, seed=seed, temperature=1) for seed in (2**63, 2**64 - 1)]
    assert told[0].shape == (5, 39)
    assert not np.array_equal(*told)


def test_its_identity_changes_with_package_entry_point_and_what_it_says_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(version: str = "1.2.0", value: str = "walkers:Walker", own: str = "") -> str:
        folder = tmp_path / f"{next(numbers)}"
        source = WALKER.replace("stochastic = True", f"stochastic = True\n    version = {own!r}")
        unpacked(folder, "walkers", {"walk": value}, f"{source}\nOther = Walker", version=version)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            patch.delitem(sys.modules, "walkers", raising=False)
            plugin = installed_plugins()["walk"]
            predictor = plugin.construct()
            sys.modules.pop("walkers")
            named = plugin.version_id(predictor)
            assert named == f"walk@{version}-{plugin.identity(predictor)[:8]}"
            return named

    assert identity() == identity()
    others = [identity("1.2.1"), identity(value="walkers:Other"), identity(own="a1b2")]
    assert len({identity(), *others}) == 4


WRONG = {
    "fails to import": ("import walkers_of_nobody", "walkers:Walker", "walkers_of_nobody"),
    "ends the process": ("raise SystemExit('bye')", "walkers:Walker", "SystemExit: bye"),
    "has no such class": (WALKER, "walkers:Runner", "Runner"),
    "is no predictor": ("Walker = dict", "walkers:Walker", "is no subclass of Predictor"),
    "is a function": (f"{WALKER}\ndef walk(): ...", "walkers:walk", "is no subclass of Predictor"),
    "is not finished": (WALKER.replace("_continue", "_go_on"), "walkers:Walker", "_continue"),
    "wants arguments": (f"{WALKER}    def __init__(self, x): ...", "walkers:Walker", "argument"),
    "raises an error of ours": (
        f"{WALKER}    def __init__(self):\n"
        "        from services.errors import NotFoundError\n"
        "        raise NotFoundError('no weights')",
        "walkers:Walker",
        "no weights",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_does_not_work_names_its_package_and_the_reason(folder: Path, wrong: str) -> None:
    source, value, reason = WRONG[wrong]
    unpacked(folder, "walkers", {"walk": value}, source)
    plugin = installed_plugins()["walk"]
    with pytest.raises(ConfigurationError, match=r"'walk' of walkers 1\.2\.0 cannot") as raised:
        plugin.construct()
    assert raised.value.culprit == "walkers 1.2.0"
    assert reason in raised.value.message
    assert "DEMIURGE_PREDICTOR_PLUGINS" in raised.value.message


def test_a_name_that_two_packages_take_serves_neither_of_them(folder: Path) -> None:
    unpacked(folder, "walkers", {"walk": "walkers:Walker"})
    unpacked(folder, "walkers-too", {"walk": "walkers_too:Walker"}, version="3")
    with pytest.raises(ConfigurationError, match="taken twice") as raised:
        installed_plugins()["walk"].construct()
    assert set(raised.value.culprit.split(" and ")) == {"walkers 1.2.0", "walkers-too 3"}


def test_a_name_that_can_be_no_id_is_refused(folder: Path) -> None:
    unpacked(folder, "walkers", {"a walk": "walkers:Walker"})
    with pytest.raises(ConfigurationError, match="letters"):
        installed_plugins()["a walk"].construct()


def test_all_some_or_none_of_them_are_served(folder: Path) -> None:
    unpacked(folder, "walkers", dict.fromkeys(("walk", "amble", "stroll"), "walkers:Walker"))
    assert {"walk", "amble", "stroll"} <= set(installed_plugins())
    assert list(installed_plugins("walk,amble")) == ["amble", "walk"]
    assert installed_plugins("none") == {}
    with pytest.raises(ConfigurationError, match=r"'run'; there are: .*walk") as raised:
        installed_plugins("walk,run")
    assert raised.value.culprit == "DEMIURGE_PREDICTOR_PLUGINS"


def test_what_it_says_of_a_question_is_not_held_against_it(folder: Path) -> None:
    unpacked(folder, "walkers", {"walk": "walkers:Walker"})
    plugin = installed_plugins()["walk"]
    with pytest.raises(InvalidInputError, match="steps is 0"), plugin.blamed():
        plugin.construct().predict(np.zeros((4, 39), np.float32), 0)
