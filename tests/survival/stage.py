"""Where runs are played, killed and played again: folders, the zygotes that fork, and comparison."""

import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.survival.child import Scene
from tests.survival.journal import TIMED, Death, Point, entries

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import RunSpec

    from services.runtime.object_store.port import ObjectStore

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 120.0
# What differs from one time to the next in the records of a run.
TIMES = {"create_time", "update_time", "start_time", "end_time"}


@dataclass(frozen=True)
class Ended:
    """How a child ended: `code` is negative for a signal; `seconds` from its fork on."""

    code: int
    seconds: float
    log: str

    @property
    def killed(self) -> bool:
        """Whether it was by SIGKILL."""
        return self.code == -signal.SIGKILL


class Zygotes:
    """As many zygotes as scenes are to be played at once."""

    def __init__(self, count: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.survival.zygote"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        self._free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for process in self._processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            self._free.put(process)

    def play(self, scene: Scene, seconds: float | None = None) -> Ended:
        """Plays one scene to its end, or kills it after `seconds`."""
        log = Path(scene.folder, "log")
        order = {
            "scene": scene.to_json(),
            "log": str(log),
            "seconds": seconds,
            "limit": LIMIT_SECONDS,
        }
        process = self._free.get()
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        finally:
            self._free.put(process)
        said = log.read_text()[-4000:]
        assert answer["code"] is not None, f"hangs:\n{said}"
        return Ended(answer["code"], answer["seconds"], said)

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`work` of each item, as many at once as there are zygotes."""
        with ThreadPoolExecutor(len(self._processes)) as threads:
            return list(threads.map(work, items))

    def close(self) -> None:
        """Ends them."""
        for process in self._processes:
            assert process.stdin
            assert process.stdout
            process.stdin.close()
            process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Remains:
    """All that a run leaves: digests of objects by key, the index's points, and how it ended."""

    objects: dict[str, str]
    outcome: dict[str, Any]

    def difference(self, other: "Remains") -> str:
        """What is not as in `other`, in words; empty if nothing is."""
        told = [
            f"{key}: {'other' if key in self.objects and key in other.objects else 'only one has it'}"
            for key in sorted(self.objects.keys() | other.objects.keys())
            if self.objects.get(key) != other.objects.get(key)
        ]
        told += [
            f"{name}: {self.outcome.get(name)!r:.300} instead of {other.outcome.get(name)!r:.300}"
            for name in sorted(self.outcome.keys() | other.outcome.keys())
            if self.outcome.get(name) != other.outcome.get(name)
        ]
        return "\n".join(told)


@dataclass(frozen=True)
class Play:
    """One run over a folder of its own, again and again until it has ended."""

    zygotes: Zygotes
    scene: Scene

    @property
    def folder(self) -> Path:
        return Path(self.scene.folder)

    def once(self, death: Death | None = None, seconds: float | None = None) -> Ended:
        """Creates the run in a new process; see Scene and Zygotes.play."""
        self.scene.outcome.unlink(missing_ok=True)
        scene = Scene(self.scene.folder, self.scene.spec, death, self.scene.settings)
        return self.zygotes.play(scene, seconds)

    def assert_died(self, ended: Ended, death: Death, point: Point) -> None:
        """Sees to it that the process was killed there."""
        assert ended.killed, f"{death}, {point}: ended with {ended.code}\n{ended.log}"
        last = entries(self.scene.journal)[-1]
        assert last == (death, point), f"died at {last}, not at {(death, point)}"

    def to_the_end(self) -> Remains:
        """Plays undisturbed; what is there then."""
        ended = self.once()
        assert ended.code == 0, ended.log
        return self.remains()

    def remains(self) -> Remains:
        """What is there now."""
        store = self.store()
        objects = {
            key: _digest(key, store.read(key)) for key in store.keys("") if not TIMED.fullmatch(key)
        }
        return Remains(objects, json.loads(self.scene.outcome.read_text()))

    def writes(self) -> list[Point]:
        """The writes of the process that played last, in order."""
        return [point for death, point in entries(self.scene.journal) if death.phase == "before"]

    def store(self) -> "ObjectStore":
        """The run's store."""
        from services.runtime.object_store.opening import open_store  # noqa: PLC0415

        return open_store(self.scene.settings.get("DEMIURGE_STORE", str(self.folder / "store")))


@dataclass(frozen=True)
class Theatre:
    """Sets a new stage for every play, each with the same inputs."""

    zygotes: Zygotes
    inputs: Path
    spec: "RunSpec"
    settings: dict[str, str] = field(default_factory=dict)

    def play(self, folder: Path, inputs: Path | None = None) -> Play:
        """A play in `folder`, which must be new, over the usual inputs or others."""
        shutil.copytree(inputs or self.inputs, folder)
        spec = self.spec.SerializeToString(deterministic=True).hex()
        return Play(self.zygotes, Scene(str(folder), spec, settings=self.settings))


def _digest(key: str, content: bytes) -> str:
    """SHA-256 of an object, but for the times in the records of a run."""
    if key.startswith("runs/") and key.endswith(("/run.json", "/request.json")):
        content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _timeless(each) for name, each in value.items() if name not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
