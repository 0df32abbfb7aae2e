"""Where runs are played, killed and played again, and what they leave is compared."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.survival.child import Scene
from tests.survival.journal import Death, Point, entries

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import RunSpec

    from tests.servers.seaweed import Seaweed

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 120.0


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
    """All that a run leaves: see child.play."""

    outcome: dict[str, Any]

    @property
    def objects(self) -> dict[str, str]:
        """Digests of the objects, by key."""
        return dict(self.outcome["objects"])

    def difference(self, other: "Remains") -> str:
        """What is not as in `other`, in words; empty if nothing is."""
        ours, theirs = self._items(), other._items()
        return "\n".join(
            f"{name}: {ours.get(name)!r:.300} instead of {theirs.get(name)!r:.300}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        )

    def _items(self) -> dict[str, Any]:
        return self.outcome | self.objects | {"objects": "", "seconds": ""}


@dataclass(frozen=True)
class Play:
    """One run over a folder of its own, again and again until it has ended."""

    zygotes: Zygotes
    scene: Scene

    @property
    def folder(self) -> Path:
        return Path(self.scene.folder)

    def once(
        self, death: Death | None = None, seconds: float | None = None, deletes: str = ""
    ) -> Ended:
        """Creates or deletes the run in a new process; see Scene and Zygotes.play."""
        self.scene.outcome.unlink(missing_ok=True)
        scene = replace(self.scene, death=death, deletes=deletes)
        return self.zygotes.play(scene, seconds)

    def assert_died(self, ended: Ended, death: Death, point: Point | None) -> None:
        """Sees to it that the process was killed there, at that `point` if one is given."""
        assert ended.killed, f"{death}, {point}: ended with {ended.code}\n{ended.log}"
        last, at = entries(self.scene.journal)[-1]
        assert (last, at) == (death, point or at), f"died {last}, {at}"

    def to_the_end(self) -> Remains:
        """Plays undisturbed; what is there then."""
        ended = self.once()
        assert ended.code == 0, ended.log
        return self.remains()

    def remains(self) -> Remains:
        """What is there now."""
        return Remains(json.loads(self.scene.outcome.read_text()))

    def writes(self) -> list[Point]:
        """The writes of the process that played last, in order."""
        return [point for death, point in entries(self.scene.journal) if death.phase == "before"]


@dataclass(frozen=True)
class Theatre:
    """Sets a new stage for every play, each with the same inputs."""

    zygotes: Zygotes
    inputs: Path
    spec: "RunSpec"
    settings: dict[str, str] = field(default_factory=dict)
    seaweed: "Seaweed | None" = None

    def play(self, folder: Path, inputs: Path | None = None) -> Play:
        """A play in `folder`, which must be new, over the usual inputs or others.

        Objects are in the folder, too, or in a new store of SeaweedFS.
        """
        settings = dict(self.settings)
        if self.seaweed is None:
            shutil.copytree(inputs or self.inputs, folder)
        else:
            folder.mkdir()
            settings |= self.seaweed.environment | {"DEMIURGE_STORE": self.seaweed.location()}
            self._upload(self.inputs / "store", settings["DEMIURGE_STORE"])
        spec = self.spec.SerializeToString(deterministic=True).hex()
        return Play(self.zygotes, Scene(str(folder), spec, settings=settings))

    def _upload(self, folder: Path, location: str) -> None:
        from services.runtime.object_store.folder import FolderStore  # noqa: PLC0415
        from services.runtime.object_store.s3 import S3Store  # noqa: PLC0415
        from services.runtime.settings import S3Settings  # noqa: PLC0415

        assert self.seaweed
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        settings = S3Settings(
            endpoint=self.seaweed.endpoint,
            access_key_file=self.seaweed.access_key_file,
            secret_key_file=self.seaweed.secret_key_file,
        )
        source, target = FolderStore(folder), S3Store(bucket, prefix, settings)
        for key in source.keys(""):
            target.put(key, source.read(key))
