"""A large database goes through a run in memory that does not grow with it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest, Run, State, WatchRunRequest
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

from services.audio.writing import Encoding, write_audio
from tests.conftest import sound, spec
from tests.e2e.workspace import Workspace

STAGES = ("extract", "index")
# Of the recordings, so that thousands fit onto a disk.
RATE = 8_000
# Between a fifth and all of the files: what every file leaves behind (its name, hash and counts in
# the run's record), and the noise of the allocator. Were its frames kept, they alone would be more.
ALLOWED_BYTES_PER_FILE = 5_000
ALLOWED_BYTES = 8 << 20
# What the index's engine keeps of each frame in memory, its id and place; the frame's own 156 bytes
# it keeps in files.
ALLOWED_BYTES_PER_INDEXED_FRAME = 150


def furnished(folder: Path, trained_models: Path, files: int, seconds: float) -> Workspace:
    """A home whose store holds a database of so many files, all different."""
    store = folder / "home" / "store"
    shutil.copytree(trained_models, store)
    material = store / "audio" / "material"
    material.mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    for number in range(files):
        turned = np.roll(noise, number)[:, None]
        write_audio(material / f"{number:05d}.wav", turned, RATE, Encoding.WAV_PCM16)
    prediction = store / "audio" / "prediction"
    prediction.mkdir()
    (prediction / "1.wav").write_bytes(sound(1.0, 1))
    return Workspace(folder)


def own_bytes(pid: int) -> int:
    """Memory of the process but for files that are mapped into it, which the system may let go."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def watched(address: str) -> Iterator[Run]:
    """The run over the database, at every change."""
    with grpc.insecure_channel(address) as channel:
        gateway = PipelineServiceStub(channel)
        wanted = spec(database="material", frames=40)
        run = gateway.CreateRun(CreateRunRequest(spec=wanted), timeout=600).run
        for message in gateway.WatchRun(WatchRunRequest(run_id=run.id)):
            yield message.run


@pytest.mark.parametrize(
    ("files", "seconds"), [(60, 60.0), pytest.param(10_000, 2.0, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(3600)
def test_the_memory_of_a_run_is_flat(
    tmp_path: Path, trained_models: Path, files: int, seconds: float
) -> None:
    work = furnished(tmp_path, trained_models, files, seconds)
    early: dict[str, int] = {}
    late: dict[str, int] = {}
    with work.up() as process:
        for run in watched(work.address()):
            for stage in run.stages:
                if stage.name not in STAGES or stage.state != State.STATE_RUNNING:
                    continue
                if stage.completed_items <= files // 5:
                    early[stage.name] = own_bytes(process.pid)
                else:
                    late[stage.name] = own_bytes(process.pid)
        assert run.state == State.STATE_SUCCEEDED, run.failure.message
    assert set(early) == set(late) == set(STAGES)
    grown = {stage: late[stage] - early[stage] for stage in STAGES}
    allowed = ALLOWED_BYTES + files * ALLOWED_BYTES_PER_FILE
    frames = files * seconds * 44_100 / 1024
    assert grown["extract"] <= allowed, grown
    assert grown["index"] <= allowed + frames * ALLOWED_BYTES_PER_INDEXED_FRAME, grown
    assert run.stages[1].completed_items == files + 1
