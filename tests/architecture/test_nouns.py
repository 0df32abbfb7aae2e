"""One noun everywhere: contract, folder, extra and setting bear the same six names."""

import inspect
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from services.cli.composition import Ground, build
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import RuntimeSettings

ROOT = Path(__file__).parents[2]
NOUNS = {path.parents[1].name for path in ROOT.glob("protos/demiurge/*/v1/*_service.proto")}
BUNDLES = {"train", "all"}


def contract_of(noun: str) -> Any:
    module = import_module(f"demiurge.{noun}.v1.{noun}_service_pb2")
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


def generated_base_of(noun: str) -> type:
    module = import_module(f"demiurge.{noun}.v1.{noun}_service_pb2_grpc")
    base = getattr(module, f"{contract_of(noun).name}Servicer")
    assert isinstance(base, type)
    return base


def servicer_of(noun: str) -> type:
    module = import_module(f"services.{noun}.servicer")
    servicer = getattr(module, f"{noun.title()}Servicer")
    assert isinstance(servicer, type)
    return servicer


def test_there_are_six_nouns() -> None:
    assert {"synth", "descriptor", "predictor", "query", "playback", "gateway"} == NOUNS


def test_every_noun_is_a_folder_with_a_servicer_and_no_other_folder_has_one() -> None:
    assert {path.parent.name for path in ROOT.glob("services/*/servicer.py")} == NOUNS


def test_every_noun_is_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - BUNDLES == NOUNS


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_the_noun_is_the_package_of_its_proto(noun: str) -> None:
    assert contract_of(noun).file.package == f"demiurge.{noun}.v1"


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_the_noun_is_the_prefix_of_its_settings(noun: str) -> None:
    settings = getattr(import_module(f"services.{noun}.settings"), f"{noun.title()}Settings")
    assert settings.model_config["env_prefix"].upper() == f"DEMIURGE_{noun.upper()}_"
    assert settings.model_config["frozen"]


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_method_of_the_contract_is_implemented(noun: str) -> None:
    servicer, base = servicer_of(noun), generated_base_of(noun)
    assert issubclass(servicer, base)
    for method in contract_of(noun).methods:
        implementation = getattr(servicer, method.name)
        assert implementation is not getattr(base, method.name), f"{method.name} is not implemented"
        is_async = inspect.iscoroutinefunction(implementation)
        assert is_async or inspect.isasyncgenfunction(implementation), f"{method.name} blocks"


@pytest.mark.parametrize("noun", sorted(NOUNS))
async def test_what_a_servicer_brings_to_warm_it_up_is_registered(
    noun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_FOLDER", str(tmp_path / "query"))
    ground = Ground(RuntimeSettings(store=str(tmp_path)), FolderStore(tmp_path), Metrics())
    registration = build(noun, ground)
    assert (registration.warm_up is not None) == hasattr(servicer_of(noun), "warm_up")
    if registration.shut_down:
        await registration.shut_down()
