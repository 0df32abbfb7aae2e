import os
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from services.errors import ConfigurationError
from services.runtime.settings import NOUNS, RuntimeSettings, ServiceSettings, load, prefix


class QuerySettings(ServiceSettings):
    model_config = prefix("DEMIURGE_QUERY_")

    threads: int = Field(2, ge=1, description="Threads of the engine.")
    names: list[str] = Field([], description="Names.")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DEMIURGE_"):
            monkeypatch.delenv(name)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_THREADS", "7")
    assert load(QuerySettings).threads == 7


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_THREADS", "")
    assert load(QuerySettings).threads == 2


def test_settings_are_frozen() -> None:
    settings = QuerySettings()
    with pytest.raises(ValidationError):
        settings.threads = 3


@pytest.mark.parametrize("value", ["many", "0"])
def test_a_value_that_cannot_be_is_refused_by_variable_name(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_THREADS", value)
    with pytest.raises(ConfigurationError, match="DEMIURGE_QUERY_THREADS: ") as caught:
        load(QuerySettings)
    assert caught.value.culprit == "DEMIURGE_QUERY_THREADS"


def test_a_list_that_is_not_json_is_refused_by_variable_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_NAMES", "a,b")
    with pytest.raises(ConfigurationError) as caught:
        load(QuerySettings)
    assert caught.value.culprit == "DEMIURGE_QUERY_NAMES"


def test_a_misspelt_variable_of_the_own_prefix_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_THREDS", "7")
    with pytest.raises(ConfigurationError, match="did you mean DEMIURGE_QUERY_THREADS"):
        load(QuerySettings)


def test_a_misspelt_noun_is_refused_by_the_common_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_QEURY_THREADS", "7")
    with pytest.raises(ConfigurationError) as caught:
        load(RuntimeSettings)
    assert caught.value.culprit == "DEMIURGE_QEURY_THREADS"


def test_variables_of_other_services_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_SYNTH_DEVICE", "cuda")
    monkeypatch.setenv("DEMIURGE_QUERY_ADDRESS", "query:50051")
    assert load(QuerySettings).threads == 2
    assert load(RuntimeSettings).address_of("query") == "query:50051"


def test_every_noun_has_an_address_and_every_field_a_line_of_documentation() -> None:
    settings = load(RuntimeSettings)
    assert {settings.address_of(noun) for noun in NOUNS} == {""}
    assert all(field.description for field in RuntimeSettings.model_fields.values())


def test_a_common_variable_under_a_nouns_prefix_is_no_stranger_to_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PredictorSettings(ServiceSettings):
        model_config = prefix("DEMIURGE_PREDICTOR_")

    monkeypatch.setenv("DEMIURGE_PREDICTOR_TOKEN_FILE", "theirs")

    load(PredictorSettings)
    assert load(RuntimeSettings).predictor_token_file == Path("theirs")
