"""What jobs do in a cluster, done by processes with their words and environment, over real S3."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime.object_store.port import ObjectStore
from tests.conftest import MELGAN, UNAGAN, OpenStack, sound
from tests.deploy.kubernetes.checks.jobs import words
from tests.deploy.kubernetes.environment import environment_of
from tests.deploy.kubernetes.rendering import ROOT, World
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

    def run(
        self, index: int, given: Sequence[str] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        """The pod of that index, started with its own words unless others are given."""
        home = self._folder / f"home-{index}"
        home.mkdir(exist_ok=True)
        given = given or words(self.job, index)
        return subprocess.Popen(
            [part for word in given for part in self._replaced.get(word, word).split()],
            env=self._environment | environment | {"DEMIURGE_HOME": str(home)},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True)
class Cluster:
    """A store with models and recordings, and jobs that work on it."""

    world: World
    store: ObjectStore
    folder: Path
    place: Mapping[str, str]
    """The variables by which the store is found."""

    def said(self, job: str, replaced: Mapping[str, str]) -> list[str]:
        """What each pod of the job said, once all have succeeded."""
        pods = Pods(self.world, job, self.folder, replaced)
        running = [pods.run(i, **self.place) for i in range(pods.job["spec"]["completions"])]
        said = [process.communicate(timeout=400)[0] for process in running]
        assert {process.returncode for process in running} == {0}, said
        return said

    def made(self, below: str) -> set[str]:
        """Keys of what is stored there."""
        return set(self.store.keys(below))


@pytest.fixture
def cluster(
    worlds: Mapping[str, World], open_stack: OpenStack, seaweed: Seaweed, tmp_path: Path
) -> Iterator[Cluster]:
    place = {"DEMIURGE_STORE": seaweed.location(), **seaweed.environment}
    store = place["DEMIURGE_STORE"]
    with open_stack(tmp_path, store=store, environment=seaweed.environment) as stack:
        for number in range(5):
            stack.store.put(f"audio/recordings/{number}.wav", sound(2.0, number))
        yield Cluster(worlds["local"], stack.store, tmp_path, place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "below", "files"),
    [("generate", "audio/generated/", 18), ("extract", "descriptors/", 5)],
)
def test_the_pods_of_a_job_leave_the_whole_in_the_store(
    job: str, below: str, files: int, cluster: Cluster
) -> None:
    cluster.said(job, SHORTER)
    assert len(cluster.made(below)) == files


@pytest.mark.slow
def test_the_pods_of_a_training_meet_and_train_one_model(cluster: Cluster) -> None:
    before = cluster.made("models/melgan/")
    port = {"--master-port=29500": f"--master-port={free_port()}"}
    first, second = cluster.said("train-nodes", NARROWER | port)
    made = cluster.made("models/melgan/") - before
    assert len({key.split("/")[2] for key in made}) == 1
    assert "training melgan: 4 of 4" in first
    assert "training melgan" not in second


@pytest.mark.slow
def test_models_come_into_the_store_as_the_documentation_says(cluster: Cluster) -> None:
    # What `tar` puts there.
    shutil.copytree(ROOT / "examples", cluster.folder / "scratch")
    pod = Pods(cluster.world, "shell", cluster.folder, {})
    documentation = (ROOT / "docs" / "deploy.md").read_text()
    commands = re.findall(r"exec job/shell -- (demiurge [^#\n]*)", documentation)
    before = cluster.made("models/")
    for command in commands:
        # Enough to be stored.
        steps = " --steps 4 --every 2" if " train " in command else ""
        given = command.replace("/scratch", f"{cluster.folder}/scratch") + steps
        running = pod.run(0, shlex.split(given), **cluster.place)
        said, _ = running.communicate(timeout=400)
        assert running.returncode == 0, said
    made = cluster.made("models/") - before
    assert {key.split("/")[1] for key in made} == {"melgan", "unagan", "predictor"}
