"""A store that is watched: how long operations took, and which failed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from services.errors import CorruptObjectError, NotFoundError, UnavailableError
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.watched import WatchedStore


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def store(tmp_path: Path, metrics: Metrics) -> ObjectStore:
    return WatchedStore(FolderStore(tmp_path), metrics)


def errors(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["operation"], sample.labels["reason"]): sample.value
        for family in metrics.object_store_errors.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


def times(metrics: Metrics, operation: str) -> float:
    name, labels = "demiurge_object_store_duration_seconds_count", {"operation": operation}
    return metrics.registry.get_sample_value(name, labels) or 0


def test_what_a_watched_store_does_is_timed(store: ObjectStore, metrics: Metrics) -> None:
    store.put("a/b.wav", b"sound")
    store.read("a/b.wav")
    with store.open("a/b.wav"):
        pass
    assert [times(metrics, name) for name in ("put", "read", "open")] == [1, 1, 1]
    assert not errors(metrics)


def test_an_absent_key_is_an_answer_and_a_rotten_object_a_fault(
    store: ObjectStore, metrics: Metrics, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        store.read("absent")
    assert not errors(metrics)
    store.put("a", b"sound")
    path = tmp_path / "a"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"S")
    with pytest.raises(CorruptObjectError):
        store.read("a")
    assert errors(metrics) == {("read", "CORRUPT_OBJECT"): 1}


def test_what_fails_while_an_object_is_read_bit_by_bit_counts_once(
    store: ObjectStore, metrics: Metrics
) -> None:
    store.put("a", b"sound")
    with pytest.raises(UnavailableError), store.open("a"):
        raise UnavailableError("the store went away")
    with pytest.raises(ZeroDivisionError), store.open("a"):
        raise ZeroDivisionError("of the reader")
    assert errors(metrics) == {("open", "UNAVAILABLE"): 1}
    assert times(metrics, "open") == 2


def test_what_nobody_foresaw_is_a_fault(metrics: Metrics, tmp_path: Path) -> None:
    class Broken(FolderStore):
        @override
        def keys(self, prefix: str) -> Iterator[str]:
            yield "a"
            raise OSError(os.strerror(5))

    with pytest.raises(OSError, match="Input/output"):
        list(WatchedStore(Broken(tmp_path), metrics).keys(""))
    assert errors(metrics) == {("keys", "INTERNAL"): 1}


def test_faults_are_shown_at_0_before_the_first_of_each_operation(
    store: ObjectStore, metrics: Metrics
) -> None:
    shown = {
        sample.labels["operation"]
        for family in metrics.object_store_errors.collect()
        for sample in family.samples
        if sample.labels["reason"] == "STORAGE_FULL"
    }
    assert shown == {name for name in dir(ObjectStore) if not name.startswith("_")}
