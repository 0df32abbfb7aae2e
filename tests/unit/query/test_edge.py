"""What is particular to the embedded index: its folder, its lock, and what a crash leaves."""

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from qdrant_edge import EdgeShard, Point, ScrollRequest, UpdateOperation

from services.audio.match_table import SourceRef
from services.errors import CorruptObjectError, StorageFullError, UnavailableError
from services.query.catalog import Catalog
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, SearchMode

SPEC = CollectionSpec(("mfcc0", "mfcc1"), 44100, 1024)

# Adds wren.wav, which is acknowledged, and owl.wav, of which the catalogue never hears; then dies.
CRASHING = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from services.audio.match_table import SourceRef
    from services.query.catalog import Catalog
    from services.query.edge import EdgeIndex
    from services.query.index import CollectionSpec

    index = EdgeIndex(Path(sys.argv[1]))
    index.create("birds", CollectionSpec(("mfcc0", "mfcc1"), 44100, 1024))
    for key in sys.argv[2:]:
        if key == "owl.wav":
            Catalog.add_source = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        source = SourceRef(key, "0" * 64, 1, "audio/wav")
        index.add("birds", source, np.full((3, 2), len(key), np.float32))
        print(key, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

# Opens the index, says so, and keeps it until its input ends.
HOLDING = """
    import sys
    from pathlib import Path
    from services.query.edge import EdgeIndex

    index = EdgeIndex(Path(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
"""


def thread_count() -> int:
    """Threads of this process, the engine's among them."""
    [line] = re.findall(r"^Threads:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(line)


def source(key: str) -> SourceRef:
    return SourceRef(key, "0" * 64, 1, "audio/wav")


def crash(folder: Path, *keys: str) -> list[str]:
    """Runs a process that adds the sounds and kills itself; those that it acknowledged."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CRASHING), str(folder), *keys],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == -9
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def index(folder: Path) -> Iterator[EdgeIndex]:
    opened = EdgeIndex(folder)
    yield opened
    opened.close()


def test_what_was_acknowledged_survives_a_kill(folder: Path) -> None:
    assert crash(folder, "wren.wav", "a.wav") == ["wren.wav", "a.wav"]

    index = EdgeIndex(folder)
    index.publish("birds")
    found = index.search("birds", np.full((1, 2), 5, np.float32), 6, SearchMode.EXACT)
    index.close()

    keys = [found.sources[number].key for number in found.source_indices[0]]
    assert keys == ["a.wav"] * 3 + ["wren.wav"] * 3
    assert found.start_samples[0].tolist() == [0, 1024, 2048] * 2


@pytest.mark.parametrize("before", [[], ["wren.wav"]])
def test_what_was_not_acknowledged_leaves_nothing(folder: Path, before: list[str]) -> None:
    assert crash(folder, *before, "owl.wav") == before

    index = EdgeIndex(folder)
    assert index.describe("birds").point_count == 3 * len(before)
    # The next sound takes the number that owl.wav was about to have.
    index.add("birds", source("crow.wav"), np.full((2, 2), 7.5, np.float32))
    total = index.publish("birds").point_count
    found = index.search("birds", np.full((1, 2), 7, np.float32), total, SearchMode.EXACT)
    index.close()

    assert [found.sources[number].key for number in found.source_indices[0]] == (
        ["crow.wav"] * 2 + before * 3
    )


def test_a_sound_that_failed_half_way_leaves_nothing(
    index: EdgeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), np.zeros((3, 2), np.float32))
    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "add_source", full)
        with pytest.raises(StorageFullError, match=r"birds.*space.*make room"):
            index.add("birds", source("owl.wav"), np.ones((3, 2), np.float32))

    index.add("birds", source("crow.wav"), np.full((1, 2), 2, np.float32))
    assert index.publish("birds").point_count == 4
    found = index.search("birds", np.ones((1, 2), np.float32), 4, SearchMode.EXACT)
    assert {found.sources[number].key for number in found.source_indices[0]} == {
        "wren.wav",
        "crow.wav",
    }


def test_a_second_process_is_told_that_the_folder_is_in_use(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDING), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(UnavailableError, match="another process") as refused:
            EdgeIndex(folder)
        assert str(folder) in refused.value.message
        holder.communicate()
    EdgeIndex(folder).close()


def test_a_folder_is_opened_once_within_a_process_too(folder: Path, index: EdgeIndex) -> None:
    with pytest.raises(UnavailableError, match="another process"):
        EdgeIndex(folder)


def test_a_folder_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder")

    with pytest.raises(UnavailableError, match="index"):
        EdgeIndex(tmp_path / "index")


def test_lost_files_are_reported_and_deletion_mends_it(folder: Path) -> None:
    index = EdgeIndex(folder)
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), np.zeros((3, 2), np.float32))
    index.publish("birds")
    index.close()
    shutil.rmtree(folder / "shards")

    index = EdgeIndex(folder)
    with pytest.raises(CorruptObjectError, match=r"birds.*--mend` rebuilds it"):
        index.search("birds", np.zeros((1, 2), np.float32), 1, SearchMode.EXACT)
    index.delete("birds")
    index.create("birds", SPEC)
    assert index.add("birds", source("wren.wav"), np.zeros((3, 2), np.float32)) == 3
    index.close()


@pytest.mark.parametrize("reopened", [True, False])
def test_a_collection_whose_files_are_lost_is_indexed_afresh(folder: Path, reopened: bool) -> None:
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    index = EdgeIndex(folder)
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames)
    index.publish("birds", "latest")
    if reopened:
        index.close()
    shutil.rmtree(folder / "shards")
    if reopened:
        index = EdgeIndex(folder)

    made = index.create("birds", SPEC)
    assert (made.point_count, made.published) == (0, False)
    assert index.add("birds", source("wren.wav"), frames) == 3
    index.publish("birds", "latest")
    found = index.search("latest", frames[1:2], 1, SearchMode.EXACT)
    assert (found.distances.item(), found.start_samples.item()) == (0, 1024)
    index.close()


def test_a_collection_that_cannot_be_opened_takes_nothing_and_is_not_published(
    folder: Path,
) -> None:
    frames = np.zeros((3, 2), np.float32)
    with_frames = EdgeIndex(folder)
    with_frames.create("birds", SPEC)
    with_frames.add("birds", source("wren.wav"), frames)
    with_frames.close()
    [shard] = (folder / "shards").iterdir()
    shutil.rmtree(shard)
    shard.mkdir()

    index = EdgeIndex(folder)
    with pytest.raises(CorruptObjectError, match=r"birds.*--mend` rebuilds it"):
        index.add("birds", source("wren.wav"), frames)
    with pytest.raises(CorruptObjectError, match=r"birds.*--mend` rebuilds it"):
        index.publish("birds")
    index.close()


def test_points_that_lost_what_they_hold_are_named_with_what_to_do(folder: Path) -> None:
    frames = np.zeros((3, 2), np.float32)
    whole = EdgeIndex(folder)
    whole.create("birds", SPEC)
    whole.add("birds", source("wren.wav"), frames)
    whole.close()
    [path] = (folder / "shards").iterdir()
    shard = EdgeShard.load(str(path))
    [point, *_], _ = shard.scroll(ScrollRequest(limit=1, with_vector=True))
    shard.update(UpdateOperation.upsert_points([Point(point.id, point.vector, {})]))
    shard.close()

    index = EdgeIndex(folder)
    with pytest.raises(CorruptObjectError, match=r"--mend` rebuilds"):
        index.search("birds", frames, 1, SearchMode.EXACT)
    with pytest.raises(CorruptObjectError, match=r"--mend` rebuilds"):
        list(index.points("birds"))
    index.close()


def test_idle_collections_are_closed_and_still_answer(folder: Path, index: EdgeIndex) -> None:
    names = [f"birds-{number}" for number in range(20)]
    for number, name in enumerate(names):
        index.create(name, SPEC)
        index.add(name, source("wren.wav"), np.full((3, 2), number, np.float32))
        index.publish(name)
        if number == 8:
            threads_of_nine = thread_count()

    assert thread_count() <= threads_of_nine
    for number, name in enumerate(names):
        found = index.search(name, np.full((1, 2), number, np.float32), 1, SearchMode.EXACT)
        assert found.distances.item() == 0
    assert thread_count() <= threads_of_nine


def test_many_threads_may_use_more_collections_than_are_kept_open(index: EdgeIndex) -> None:
    names = [f"birds-{number}" for number in range(12)]
    for number, name in enumerate(names):
        index.create(name, SPEC)
        index.add(name, source("wren.wav"), np.full((3, 2), number, np.float32))

    def distance(turn: int) -> float:
        number = turn * 7 % len(names)
        query = np.full((1, 2), number, np.float32)
        return index.search(names[number], query, 1, SearchMode.EXACT).distances.item()

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(distance, range(96))) == {0.0}


def test_deleting_frees_the_disk(folder: Path, index: EdgeIndex) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), np.zeros((3, 2), np.float32))

    index.delete("birds")

    assert list((folder / "shards").iterdir()) == []


def test_the_graph_that_was_left_out_is_built_when_it_is_asked_for(folder: Path) -> None:
    def indexed_vectors() -> int:
        [shard] = (folder / "shards").iterdir()
        opened = EdgeShard.load(str(shard))
        try:
            return int(opened.info().indexed_vectors_count)
        finally:
            opened.close()

    names = tuple(f"mfcc{number}" for number in range(300))
    frames = np.random.default_rng(1).normal(size=(1000, 300)).astype(np.float32)
    for skip_graph, indexed in ((True, 0), (False, 1000)):
        index = EdgeIndex(folder)
        index.create("birds", CollectionSpec(names, 44100, 1024))
        index.add("birds", source("wren.wav"), frames)
        index.publish("birds", skip_graph=skip_graph)
        index.close()
        assert indexed_vectors() == indexed


def test_what_writes_nothing_needs_no_room(
    folder: Path, index: EdgeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((3, 2), np.float32)
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames)
    index.publish("birds", "latest")
    size = shutil.disk_usage(folder)
    # Taken for full: a file system is filled for good in the tests of trouble.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: size._replace(free=1 << 20))

    assert index.create("birds", SPEC).published
    assert index.add("birds", source("wren.wav"), frames) == 3
    assert index.publish("birds", "latest").published
    assert index.publish("birds", skip_graph=True).published

    with pytest.raises(StorageFullError, match="is full"):
        index.create("bats", SPEC)
    assert [collection.id for collection in index.list()] == ["birds"]


def test_a_sound_and_a_graph_need_room(
    folder: Path, index: EdgeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), np.zeros((3, 2), np.float32))
    size = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: size._replace(free=1 << 20))

    with pytest.raises(StorageFullError, match="is full"):
        index.add("birds", source("owl.wav"), np.zeros((3, 2), np.float32))
    with pytest.raises(StorageFullError, match="is full"):
        index.publish("birds")

    assert index.publish("birds", skip_graph=True).point_count == 3


def test_a_damaged_collection_that_was_never_complete_is_begun_anew(folder: Path) -> None:
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    index = EdgeIndex(folder)
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames)
    index.close()
    [shard] = (folder / "shards").iterdir()
    shutil.rmtree(shard)
    shard.mkdir()

    index = EdgeIndex(folder)
    assert index.create("birds", SPEC).point_count == 0
    index.add("birds", source("wren.wav"), frames)
    assert index.publish("birds").point_count == 3
    index.close()
