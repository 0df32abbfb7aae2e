"""One run from beginning to end in a process of its own, which may be killed at any moment.

The services are composed as the command line does it, but that their writes are noted.
"""

# ruff: noqa: PLC0415

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.survival.journal import (
    TIMED,
    Death,
    Journal,
    WitnessedStore,
    witness_halves,
    witness_index,
)

# What differs from one time to the next in the records of a run.
TIMES = {"create_time", "update_time", "start_time", "end_time"}


@dataclass(frozen=True)
class Scene:
    """What a child plays: the run `spec` (hexadecimal message) over `folder`, up to its death.

    Or, if `deletes` is the id of a run, its deletion; or, if `trains` is a family, a training.
    """

    folder: str
    spec: str
    death: Death | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables; DEMIURGE_STORE is folder/store unless set."""
    deletes: str = ""
    trains: str = ""

    def to_json(self) -> str:
        """For the way into the child."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Scene":
        """What to_json wrote."""
        fields = json.loads(text)
        death = fields.pop("death")
        return Scene(**fields, death=Death(**death) if death else None)

    @property
    def journal(self) -> Path:
        """The writes of the process that played last."""
        return Path(self.folder, "journal")

    @property
    def outcome(self) -> Path:
        """How the run ended: JSON."""
        return Path(self.folder, "outcome.json")


def play(scene: Scene) -> None:
    """Creates the run and waits for its end, or deletes it, or trains; writes the outcome."""
    if scene.trains:
        from tests.survival.training import play_training

        play_training(scene)
        return
    begin = time.monotonic()
    folder = Path(scene.folder)
    for name in [name for name in os.environ if name.startswith("DEMIURGE_")]:
        del os.environ[name]
    os.environ |= {
        "DEMIURGE_STORE": str(folder / "store"),
        "DEMIURGE_QUERY_FOLDER": str(folder / "query"),
        "DEMIURGE_LOG_LEVEL": "warning",
        **scene.settings,
    }
    scene.journal.unlink(missing_ok=True)
    journal = Journal(scene.journal, scene.death)
    witness_index(journal)
    witness_halves(journal)

    from services.errors import DemiurgeError
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    runtime = load(RuntimeSettings)
    try:
        outcome = _run(scene, journal, runtime)
    except DemiurgeError as error:
        outcome = {"state": "REFUSED", "error": error.message, "reason": error.reason}
    outcome["seconds"] = time.monotonic() - begin
    outcome["points"] = _points(folder / "query")
    outcome["objects"] = _objects(open_store(runtime))
    scene.outcome.write_text(json.dumps(outcome))


def _run(scene: Scene, journal: Journal, runtime: Any) -> dict[str, Any]:
    from demiurge.gateway.v1.gateway_service_pb2 import (
        CreateRunRequest,
        DeleteRunRequest,
        RunSpec,
        State,
        WatchRunRequest,
    )

    from services.cli.composition import Ground, build
    from services.cli.connection import client_of
    from services.runtime.channels import open_blocking_channel
    from services.runtime.embedding import embedded, embedded_settings
    from services.runtime.logs import configure_logging
    from services.runtime.metrics import Metrics
    from services.runtime.object_store.opening import open_store
    from services.runtime.object_store.port import ObjectStore
    from services.runtime.settings import NOUNS
    from services.runtime.status import remote_errors

    runtime = embedded_settings(runtime)
    configure_logging(runtime)
    store = open_store(runtime)
    metrics = Metrics()
    ground = Ground(runtime, cast("ObjectStore", WitnessedStore(store, journal)), metrics)
    with embedded(lambda: [build(noun, ground) for noun in NOUNS], runtime, metrics) as server:
        ground.own_address = f"127.0.0.1:{server.port}"
        with open_blocking_channel(ground.own_address, runtime) as channel, remote_errors():
            pipeline = client_of(dict.fromkeys(NOUNS, channel)).pipeline
            if scene.deletes:
                pipeline.DeleteRun(DeleteRunRequest(run_id=scene.deletes))
                return {"state": "DELETED"}
            spec = RunSpec.FromString(bytes.fromhex(scene.spec))
            created = pipeline.CreateRun(CreateRunRequest(spec=spec)).run
            *_, last = pipeline.WatchRun(WatchRunRequest(run_id=created.id))
    run = last.run
    outcome = {
        "id": run.id,
        "state": State.Name(run.state),
        "error": run.failure.message,
        "reason": run.failure.reason,
    }
    for name in ("audio", "edit_list", "spectrogram"):
        reference = getattr(run.result, name)
        if reference.key:
            content = store.read(reference.key, sha256=reference.sha256)
            outcome[name] = hashlib.sha256(content).hexdigest()
    return outcome


def _objects(store: Any) -> dict[str, str]:
    """All that the store holds: SHA-256 by key, but for the times in the records of a run."""
    from services.errors import CorruptObjectError

    found = {}
    for key in store.keys(""):
        if TIMED.fullmatch(key):
            continue
        try:
            content = store.read(key)
        except CorruptObjectError:
            found[key] = "corrupt"
            continue
        if key.startswith("runs/") and key.endswith(("/run.json", "/request.json")):
            content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
        found[key] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _timeless(each) for name, each in value.items() if name not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _points(folder: Path) -> dict[str, list[str]]:
    """All that the index really holds, by collection: a digest of each point, in order."""
    from services.query.edge import EdgeIndex

    index = EdgeIndex(folder)
    try:
        return {each.id: sorted(_digests(index, each.id)) for each in index.list()}
    finally:
        index.close()


def _digests(index: Any, collection_id: str) -> list[str]:
    return [
        hashlib.sha256(repr((id_, key, int(start))).encode() + frame.tobytes()).hexdigest()[:16]
        for page in index.points(collection_id)
        for id_, key, start, frame in zip(
            page.ids, page.keys, page.start_samples, page.frames, strict=True
        )
    ]
