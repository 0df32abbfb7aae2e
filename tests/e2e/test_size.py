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
from tests.conftest import RATE, samples, sound, spec
from tests.e2e.workspace import Workspace

STAGES = ("extract", "index")
# Between a fifth and all of the files: what every file leaves behind (its name, hash and counts in
# the run's record), and the noise of the allocator. A file's frames alone would be 2.3 KB.
ALLOWED_BYTES_PER_FILE = 5_000
ALLOWED_BYTES = 24 << 20


def furnished(folder: Path, trained_models: Path, files: int) -> Workspace:
    """A home whose store holds a database of so many short files, all different."""
    store = folder / "home" / "store"
    shutil.copytree(trained_models, store)
    material = store / "audio" / "material"
    material.mkdir(parents=True)
    glide = samples(0.3, 1)
    for number in range(files):
        turned = np.roll(glide, number)[:, None]
        write_audio(material / f"{number:05d}.wav", turned, RATE, Encoding.WAV_PCM16)
    prediction = store / "audio" / "prediction"
    prediction.mkdir()
    (prediction / "1.wav").write_bytes(sound(1.0, 1))
    return Workspace(folder)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def watched(address: str, files: int) -> Iterator[Run]:
    """The run over the database, at every change."""
    with grpc.insecure_channel(address) as channel:
        gateway = PipelineServiceStub(channel)
        wanted = spec(database="material", frames=40)
        run = gateway.CreateRun(CreateRunRequest(spec=wanted), timeout=600).run
        for message in gateway.WatchRun(WatchRunRequest(run_id=run.id)):
            yield message.run


@pytest.mark.parametrize("files", [250, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_the_memory_of_a_run_is_flat(tmp_path: Path, trained_models: Path, files: int) -> None:
    work = furnished(tmp_path, trained_models, files)
    early: dict[str, int] = {}
    late: dict[str, int] = {}
    with work.up() as process:
        for run in watched(work.address(), files):
            for stage in run.stages:
                if stage.name not in STAGES or stage.state != State.STATE_RUNNING:
                    continue
                if stage.completed_items <= files // 5:
                    early[stage.name] = resident_bytes(process.pid)
                else:
                    late[stage.name] = resident_bytes(process.pid)
        assert run.state == State.STATE_SUCCEEDED, run.failure.message
    assert set(early) == set(late) == set(STAGES)
    grown = {stage: late[stage] - early[stage] for stage in STAGES}
    assert max(grown.values()) <= ALLOWED_BYTES + files * ALLOWED_BYTES_PER_FILE, grown
    assert run.stages[1].completed_items == files + 1
