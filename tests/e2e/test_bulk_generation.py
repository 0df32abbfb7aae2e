"""Many sounds with one command: killed in the middle, it goes on where it was."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import MELGAN, UNAGAN
from tests.e2e.workspace import Workspace, ended, interrupted, wait_until

FILES = 24
ORDER = ("generate", "--unagan", UNAGAN, "--melgan", MELGAN, "--files", str(FILES))
SOUNDS = [f"seed-{seed}-1.5s.wav" for seed in range(FILES)]


@pytest.fixture
def work(tmp_path: Path, trained_models: Path) -> Workspace:
    shutil.copytree(trained_models, tmp_path / "home" / "store")
    return Workspace(tmp_path)


def stored(place: Workspace) -> dict[str, int]:
    """The finished sounds of the store: when each was written."""
    found = (place.home / "store" / "audio").glob("*/*.wav")
    return {path.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize("options", [(), ("--batch", "6", "--calls", "2")])
def test_a_command_that_was_killed_makes_only_what_is_missing(
    work: Workspace, options: tuple[str, ...]
) -> None:
    order = (*ORDER, "--duration", "1.5", *options)
    process = work.start(*order)
    wait_until(lambda: len(stored(work)) >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    # Whatever has no marker yet may be compared, but is not written again either.
    before = stored(work)
    assert len(before) < FILES

    assert work.output(*order) == "generated"

    after = stored(work)
    assert {name: after[name] for name in before} == before
    assert sorted(after) == sorted(SOUNDS)
    fetched = {path.name: path for path in (work.folder / "generated").iterdir()}
    assert sorted(fetched) == sorted(SOUNDS)
    assert len({path.read_bytes() for path in fetched.values()}) == FILES
    assert not [path for path in work.leftovers() if work.home not in path.parents]

    times = {path: path.stat().st_mtime_ns for path in fetched.values()}
    work.output(*order)
    assert stored(work) == after
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_batch_holds_the_sounds_of_single_calls(work: Workspace) -> None:
    work.output(*ORDER, "--duration", "0.3", "--out", "single", "--database", "single")
    work.output(*ORDER, "--duration", "0.3", "--out", "batch", "--database", "b", "--batch", "24")

    for seed in range(FILES):
        name = f"seed-{seed}-0.3s.wav"
        single, _ = soundfile.read(work.folder / "single" / name, dtype="int16")
        batch, _ = soundfile.read(work.folder / "batch" / name, dtype="int16")
        assert np.abs(single.astype(int) - batch).max() <= 1


def test_a_sound_that_fails_fails_alone(work: Workspace) -> None:
    foreign = work.home / "store" / "audio" / "songs" / "seed-2-0.3s.wav"
    foreign.parent.mkdir(parents=True)
    soundfile.write(foreign, np.zeros(100), 44_100)

    options = ("--database", "songs", "--batch", "24", "--out", "out")
    done = work.run(*ORDER, "--duration", "0.3", *options)

    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("demiurge: 1 of 24")
    assert "seed-2-0.3s.wav" in said
    assert len(list((work.folder / "out").iterdir())) == FILES - 1


def test_ctrl_c_ends_it_calmly(work: Workspace) -> None:
    done = interrupted(work.start(*ORDER, "--duration", "1.5"), "generating: 0 of 24")

    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "demiurge: stopped; what was finished is kept"
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_is_refused_before_any_work(work: Workspace) -> None:
    (work.folder / "taken").write_text("a file")

    assert "--out" in work.refusal(*ORDER, "--duration", "1.5", "--out", "taken")
    assert not stored(work)
