import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from services.errors import ConfigurationError
from services.runtime.object_store.opening import open_store
from services.runtime.settings import (
    NOUNS,
    RuntimeSettings,
    S3Settings,
    ServiceSettings,
    load,
    prefix,
)


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


class Everything(ServiceSettings):
    model_config = prefix("DEMIURGE_TEST_")
    needed_for = "tests"

    address: str = Field(pattern="^http://", description="http://host:port.")
    whole: int = Field(1, ge=1, le=9, description="How many.")
    number: float = Field(1.0, gt=0, lt=2, description="How long.")
    flag: bool = Field(False, description="Whether.")
    choice: Literal["one", "two"] = Field("one", description="Which.")
    name: str = Field("x", min_length=1, description="Who.")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("ADDRESS", None, "is needed for tests: http://host:port"),
        ("ADDRESS", "host", "has to be of the form that is described here: http://host:port"),
        ("WHOLE", "many", "has to be a whole number: How many"),
        ("WHOLE", "1.5", "has to be a whole number: How many"),
        ("WHOLE", "0", "has to be 1 or more: How many"),
        ("WHOLE", "10", "has to be 9 or less: How many"),
        ("NUMBER", "long", "has to be a number: How long"),
        ("NUMBER", "0", "has to be above 0.0: How long"),
        ("NUMBER", "2", "has to be below 2.0: How long"),
        ("FLAG", "perhaps", "has to be true or false: Whether"),
        ("CHOICE", "three", "has to be 'one' or 'two': Which"),
    ],
)
def test_a_setting_says_what_it_wants_in_words_of_its_description(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str | None, wanted: str
) -> None:
    monkeypatch.setenv("DEMIURGE_TEST_ADDRESS", "http://host:1")
    if value is None:
        monkeypatch.delenv(f"DEMIURGE_TEST_{field}")
    else:
        monkeypatch.setenv(f"DEMIURGE_TEST_{field}", value)
    with pytest.raises(ConfigurationError) as caught:
        load(Everything)
    assert caught.value.message == f"DEMIURGE_TEST_{field}: {wanted}"


@pytest.mark.parametrize("settings", [RuntimeSettings, S3Settings])
def test_who_names_a_bucket_by_a_variable_of_its_own_hears_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, settings: type[ServiceSettings]
) -> None:
    monkeypatch.setenv("DEMIURGE_S3_BUCKET", "our-lab")
    with pytest.raises(ConfigurationError, match="did you mean DEMIURGE_STORE=s3://bucket"):
        load(settings)


@pytest.mark.parametrize(
    "location",
    [
        *("s3:/lab", "s3:lab", "S3://lab", "ftp://host/folder", "file:///lab"),
        *("s3://", "s3://La_b", "s3://ab", "s3://-lab", "s3://a..b", "s3://192.168.1.1"),
    ],
)
def test_a_store_of_no_known_kind_or_name_is_refused_with_an_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMIURGE_STORE", location)
    with pytest.raises(ConfigurationError, match=r"^DEMIURGE_STORE: .*s3://our-lab") as caught:
        open_store(load(RuntimeSettings))
    assert caught.value.culprit == "DEMIURGE_STORE"
    assert not list(tmp_path.iterdir())


def test_a_store_may_lie_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store(RuntimeSettings(store="~/lab")).put("a", b"1")
    assert (tmp_path / "lab" / "a").read_bytes() == b"1"
