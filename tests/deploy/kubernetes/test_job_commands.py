"""What jobs do in a cluster, done by processes: their words and environment, over a real S3 server."""

import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from services.runtime.object_store.port import ObjectStore
from tests.conftest import MELGAN, UNAGAN, OpenStack, sound
from tests.deploy.kubernetes.checks.jobs import words
from tests.deploy.kubernetes.environment import environment_of
from tests.deploy.kubernetes.rendering import World
from tests.e2e.processes import free_port
from tests.servers.seaweed import Seaweed

BIN = Path(sys.executable).parent
# Enough to see that two of them learn together, and no more.
NARROWER = {
    "--master-addr=train-nodes-0.train-nodes": "--master-addr=127.0.0.1",
    "--preset=single-gpu": "--preset=demo-cpu --device=cpu --batch-size=2 --every=2",
    "--steps=400000": "--steps=4",
}
SHORTER = {
    "--unagan=UNAGAN": f"--unagan={UNAGAN}",
    "--melgan=MELGAN": f"--melgan={MELGAN}",
    "--files=1000": "--files=18",
    "--duration=10": "--duration=0.3",
}


def made(store: ObjectStore, below: str) -> dict[str, str]:
    """Hashes of what is stored there, by key."""
    return {key: sha256(store.read(key)).hexdigest() for key in store.keys(below)}


class Pods:
    """The pods of one Job, as processes in a folder that stands for their volumes."""

    def __init__(self, world: World, job: str, folder: Path, replaced: Mapping[str, str]) -> None:
        self.job = world.one("Job", job)
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("DEMIURGE_")}
        self._environment |= environment_of(world, self.job) | {"OMP_NUM_THREADS": "1"}
        self._environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "WANDB_MODE": "disabled"}
        self._environment |= {"TMPDIR": str(folder), "HOME": str(folder)}
        del self._environment["NUMBA_CACHE_DIR"]
        self._folder = folder
        self._replaced = replaced

    def run(self, index: int, **environment: str) -> "subprocess.Popen[str]":
        """The pod of that index, started."""
        home = self._folder / f"home-{index}"
        home.mkdir(exist_ok=True)
        given = words(self.job, index)
        return subprocess.Popen(
            [part for word in given for part in self._replaced.get(word, word).split()],
            env=self._environment | environment | {"DEMIURGE_HOME": str(home)},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "below", "files"),
    [("generate", "audio/generated/", 18), ("extract", "descriptors/", 5)],
)
def test_the_pods_of_a_job_leave_the_whole_in_the_store(
    job: str,
    below: str,
    files: int,
    worlds: Mapping[str, World],
    open_stack: OpenStack,
    seaweed: Seaweed,
    tmp_path: Path,
) -> None:
    place = {"DEMIURGE_STORE": seaweed.location(), **seaweed.environment}
    with open_stack(
        tmp_path, store=place["DEMIURGE_STORE"], environment=seaweed.environment
    ) as stack:
        for number in range(5):
            stack.store.put(f"audio/recordings/{number}.wav", sound(0.3, number))
        pods = Pods(worlds["local"], job, tmp_path, SHORTER)
        running = [pods.run(i, **place) for i in range(pods.job["spec"]["completions"])]
        for process in running:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said
        assert len(made(stack.store, below)) == files


@pytest.mark.slow
def test_the_pods_of_a_training_meet_and_train_one_model(
    worlds: Mapping[str, World], open_stack: OpenStack, seaweed: Seaweed, tmp_path: Path
) -> None:
    place = {"DEMIURGE_STORE": seaweed.location(), **seaweed.environment}
    with open_stack(
        tmp_path, store=place["DEMIURGE_STORE"], environment=seaweed.environment
    ) as stack:
        for number in range(4):
            stack.store.put(f"audio/recordings/{number}.wav", sound(2.0, number))
        before = made(stack.store, "models/melgan/")
        port = {"--master-port=29500": f"--master-port={free_port()}"}
        pods = Pods(worlds["local"], "train-nodes", tmp_path, NARROWER | port)
        running = [pods.run(index, **place) for index in range(2)]
        said = [process.communicate(timeout=400)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], said
        models = {key.split("/")[2] for key in made(stack.store, "models/melgan/").keys() - before}
    assert len(models) == 1
    assert "training melgan: 4 of 4" in said[0]
    assert "training melgan" not in said[1]
