import pytest

from services.descriptor.settings import DescriptorSettings
from services.errors import ConfigurationError
from services.runtime.settings import load


def test_workers_are_one_per_processor_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMIURGE_DESCRIPTOR_WORKERS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert load(DescriptorSettings).workers == 5

    monkeypatch.setenv("DEMIURGE_DESCRIPTOR_WORKERS", "3")
    assert load(DescriptorSettings).workers == 3


def test_no_workers_are_refused_by_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEMIURGE_DESCRIPTOR_WORKERS", "0")

    with pytest.raises(ConfigurationError, match="DEMIURGE_DESCRIPTOR_WORKERS"):
        load(DescriptorSettings)
