"""The cache of arrays: each made once, found whole or not at all, and made again if damaged."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from services.errors import StorageFullError, UnavailableError
from services.learning import array_cache
from services.learning.array_cache import Append, ArrayCache, Facts
from tests.full_disk import files_of_at_most


class Maker:
    """Makes rows of a matrix in uneven parts, and counts how often."""

    def __init__(self, rows: int = 10) -> None:
        self.array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        self.made = 0

    def __call__(self, append: Append) -> Facts:
        self.made += 1
        for part in np.array_split(self.array, [1, 1, 4]):
            append(part)
        return {"peak": 0.1, "mean": [1 / 3, -0.0]}


def _entry(folder: Path) -> Path:
    (entry,) = folder.rglob("*.npy")
    return entry


@pytest.mark.parametrize("keeps", [True, False])
def test_parts_become_one_array_that_cannot_be_written_to(tmp_path: Path, keeps: bool) -> None:
    make = Maker()
    entry = ArrayCache(tmp_path if keeps else None).get("sounds", {"x": 1}, make)
    np.testing.assert_array_equal(entry.array, make.array)
    assert entry.array.dtype == np.float32
    assert entry.facts == {"peak": 0.1, "mean": [1 / 3, 0.0]}
    with pytest.raises(ValueError, match="read-only"):
        entry.array[0] = 1


def test_an_array_is_made_once_for_each_key_and_kind(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(2):
        # Another cache of the same folder: what another process would see.
        cache = ArrayCache(tmp_path)
        cache.get("sounds", {"x": 1, "y": "a"}, make)
        cache.get("sounds", {"y": "a", "x": 1}, make)
    assert make.made == 1
    cache.get("sounds", {"x": 2, "y": "a"}, make)
    cache.get("mels", {"x": 1, "y": "a"}, make)
    assert make.made == 3


def test_without_a_folder_nothing_is_kept() -> None:
    make = Maker()
    for _ in range(2):
        ArrayCache(None).get("sounds", {}, make)
    assert make.made == 2


def test_an_entry_lies_in_its_file_and_numpy_reads_it(tmp_path: Path) -> None:
    make = Maker(rows=100_000)
    entry = ArrayCache(tmp_path).get("sounds", {}, make)
    assert isinstance(entry.array.base, np.memmap)
    np.testing.assert_array_equal(np.load(_entry(tmp_path)), make.array)


def test_a_key_always_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ArrayCache(tmp_path / name).get("sounds", {"x": 1}, Maker())
    assert _entry(tmp_path / "one").read_bytes() == _entry(tmp_path / "two").read_bytes()
    assert _entry(tmp_path / "one").name == _entry(tmp_path / "two").name


def test_every_flipped_bit_is_noticed_and_mended(tmp_path: Path) -> None:
    make = Maker()
    cache = ArrayCache(tmp_path)
    cache.get("sounds", {}, make)
    path = _entry(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cache.get("sounds", {}, make).array, make.array)
        assert path.read_bytes() == whole
    assert make.made == 1 + len(whole)


def test_every_other_length_is_noticed_and_mended(tmp_path: Path) -> None:
    make = Maker()
    cache = ArrayCache(tmp_path)
    cache.get("sounds", {}, make)
    path = _entry(tmp_path)
    whole = path.read_bytes()
    for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\0", whole * 2]:
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cache.get("sounds", {}, make).array, make.array)
        assert path.read_bytes() == whole


def test_an_entry_that_is_deleted_or_replaced_stays_with_whoever_uses_it(tmp_path: Path) -> None:
    make = Maker()
    cache = ArrayCache(tmp_path)
    entry = cache.get("sounds", {}, make)
    _entry(tmp_path).unlink()
    np.testing.assert_array_equal(entry.array, make.array)
    cache.get("sounds", {}, make)
    assert make.made == 2


def test_what_fails_keeps_nothing(tmp_path: Path) -> None:
    def make(append: Append) -> Facts:
        append(np.zeros(5))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        ArrayCache(tmp_path).get("sounds", {}, make)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [np.zeros((0, 3), np.float32)],
        [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)],
        [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float64)],
    ],
)
def test_parts_that_make_no_array_are_refused(tmp_path: Path, parts: list[np.ndarray]) -> None:
    def make(append: Append) -> Facts:
        for part in parts:
            append(part)
        return {}

    with pytest.raises(ValueError, match="row"):
        ArrayCache(tmp_path).get("sounds", {}, make)


def test_a_full_disk_is_told_with_the_folder_to_clear(tmp_path: Path) -> None:
    make = Maker(rows=100_000)
    with files_of_at_most(50_000), pytest.raises(StorageFullError, match="may be deleted") as told:
        ArrayCache(tmp_path).get("sounds", {}, make)
    assert str(tmp_path) in told.value.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    np.testing.assert_array_equal(ArrayCache(tmp_path).get("sounds", {}, make).array, make.array)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="file"):
        ArrayCache(tmp_path / "file" / "cache").get("sounds", {}, Maker())


def test_many_that_make_the_same_at_once_all_get_it(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    together = threading.Barrier(4, timeout=30)
    got: list[bool] = []

    class Meeting(Maker):
        def __call__(self, append: Append) -> Facts:
            together.wait()
            return super().__call__(append)

    def work() -> None:
        make = Meeting()
        got.append(np.array_equal(cache.get("sounds", {}, make).array, make.array))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert got == [True] * 4
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from services.learning.array_cache import ArrayCache

def make(append):
    append(np.ones((200_000, 3), np.float32))
    print("writing", flush=True)
    time.sleep(600)

ArrayCache(Path(sys.argv[1])).get("sounds", {}, make)
"""


def test_a_killed_process_leaves_nothing_that_is_taken_for_an_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    (partial,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    make = Maker()
    np.testing.assert_array_equal(ArrayCache(tmp_path).get("sounds", {}, make).array, make.array)
    # It may belong to a process that still writes; a day later it cannot.
    assert partial.exists()
    past = time.time() - array_cache.SECONDS_UNTIL_ABANDONED - 60
    os.utime(partial, (past, past))
    ArrayCache(tmp_path)
    assert not partial.exists()
    assert _entry(tmp_path).exists()
