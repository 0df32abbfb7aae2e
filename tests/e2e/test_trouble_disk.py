"""Disks that are really full: of the store, of the index, and of temporary files."""

# ruff: noqa: PLC0415

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.errors import StorageFullError
from tests.conftest import OpenStack, Stack, spec
from tests.e2e.trouble import RESUMES, SOUNDS, assert_undisturbed, undisturbed_stack

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Failure, Run, RunSpec

slow = pytest.mark.slow


class Disk:
    """A file system of its own in `folder`, to be filled."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"
        self._folder = folder

    def leave(self, size_bytes: int) -> None:
        """Takes all room but that; whole pages count."""
        free = shutil.disk_usage(self._folder).free - size_bytes
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free, 1))

    def make_room(self) -> None:
        """Gives back what was taken."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def disk(folder: Path, mebibytes: int) -> Iterator[Disk]:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("file systems can only be mounted by root")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with undisturbed_stack(open_stack, tmp_path_factory.mktemp("undisturbed")) as opened:
        yield opened


def wanted_run(seed: int) -> "RunSpec":
    return spec(frames=20, files=2, seconds=0.4, seed=seed)


def upload(stack: Stack) -> None:
    for name, content in SOUNDS.items():
        stack.upload("prediction", name, content)


def failure_of(stack: Stack, wanted: "RunSpec") -> "tuple[Failure, Run] | None":
    """How the run failed, and the run as it is shown afterwards; None if it could not begin."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    try:
        run = stack.create(wanted)
    except StorageFullError:
        return None
    ended = stack.ended(run)
    assert ended.state == State.STATE_FAILED
    return ended.failure, stack.get(run.id)


def assert_whole(stack: Stack) -> None:
    """Nothing in the store is half-written."""
    for key in stack.store.keys(""):
        if key != "filler":
            stack.store.read(key, sha256=stack.store.stat(key).sha256)
    assert not [name for name in stack.files() if name.startswith(".") or "/." in name]


# Room in which a run comes ever further: of the half-second sounds each takes some 36 KB.
ROOMS = (0, 8, 24, 48, 64, 80, 96, 104, 112, 120, 128, 136, 144, 152, 160)

INDEX_ROOMS = (0, 64, 1024, 8192, 16384, 32000)


@pytest.mark.parametrize(
    "kibibytes", [24, 120, *(pytest.param(each, marks=slow) for each in ROOMS)]
)
def test_a_run_whose_store_is_full_says_so_and_resumes_once_there_is_room(
    open_stack: OpenStack, undisturbed: Stack, tmp_path: Path, kibibytes: int
) -> None:
    wanted = wanted_run(1000 + kibibytes)
    with disk(tmp_path / "store", 64) as full, open_stack(tmp_path) as stack:
        upload(stack)
        full.leave(kibibytes * 1024)
        before = stack.files()
        failed = failure_of(stack, wanted)
        if failed:
            failure, shown = failed
            assert failure.reason == "STORAGE_FULL"
            assert "is full: make room there" in failure.message
            assert failure.message.count(RESUMES) == 1
            assert shown.failure == failure
        else:
            assert stack.files() == before
        assert_whole(stack)
        full.make_room()
        assert_undisturbed(stack.made(wanted), stack.store, undisturbed, wanted)


@pytest.mark.parametrize(
    "kibibytes", [64, *(pytest.param(each, marks=slow) for each in INDEX_ROOMS)]
)
def test_a_run_whose_index_has_no_room_says_so_and_resumes_once_there_is_some(
    open_stack: OpenStack, undisturbed: Stack, tmp_path: Path, kibibytes: int
) -> None:
    wanted = wanted_run(2000 + kibibytes)
    with disk(tmp_path / "query", 512) as full, open_stack(tmp_path) as stack:
        upload(stack)
        full.leave(kibibytes * 1024)
        failed = failure_of(stack, wanted)
        assert failed
        failure, shown = failed
        assert failure.reason == "STORAGE_FULL"
        assert failure.message.count(RESUMES) == 1
        assert shown.failure == failure
        full.make_room()
        assert_undisturbed(stack.made(wanted), stack.store, undisturbed, wanted)


@pytest.mark.parametrize("stage", ["generate", "extract", "render"])
def test_a_run_without_room_for_temporary_files_says_so_and_resumes_once_there_is_some(
    open_stack: OpenStack,
    undisturbed: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    from demiurge.gateway.v1.gateway_service_pb2 import State

    wanted = wanted_run(3000)
    if stage == "extract":
        # Sounds that are there already need no generation.
        wanted.database = "prediction"
    with disk(tmp_path / "temporary", 8) as full, open_stack(tmp_path) as stack:
        upload(stack)
        if stage == "render":
            # Another run over the same sounds leaves nothing to do but the piece.
            before = wanted_run(3000)
            before.prediction.frame_count -= 1
            stack.piece(before)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        full.leave(4096)
        failed = failure_of(stack, wanted)
        assert failed
        failure, shown = failed
        assert failure.reason == "STORAGE_FULL"
        assert "TMPDIR" in failure.message
        assert failure.message.count(RESUMES) == 1
        assert shown.failure == failure
        assert [each.name for each in shown.stages if each.state == State.STATE_FAILED] == [stage]
        assert_whole(stack)
        full.make_room()
        assert_undisturbed(stack.made(wanted), stack.store, undisturbed, wanted)
        assert not list((tmp_path / "temporary").iterdir())
