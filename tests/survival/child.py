"""One run from beginning to end in a process of its own, which may be killed at any moment.

The services are composed as the command line does it, but that their writes are noted.
"""

# ruff: noqa: PLC0415

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.survival.journal import (
    Death,
    Journal,
    WitnessedStore,
    witness_files,
    witness_index,
)


@dataclass(frozen=True)
class Scene:
    """What a child plays: the run `spec` (hexadecimal message) over `folder`, up to its death."""

    folder: str
    spec: str
    death: Death | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables; DEMIURGE_STORE is folder/store unless set."""

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
    """Creates the run, waits for its end, and writes the outcome."""
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
    witness_files(journal)

    from services.errors import DemiurgeError

    try:
        outcome = _run(bytes.fromhex(scene.spec), journal)
    except DemiurgeError as error:
        outcome = {"state": "REFUSED", "error": error.message, "reason": error.reason}
    outcome["points"] = _points(folder / "query")
    scene.outcome.write_text(json.dumps(outcome))


def _run(spec: bytes, journal: Journal) -> dict[str, Any]:
    from demiurge.gateway.v1.gateway_service_pb2 import (
        CreateRunRequest,
        RunSpec,
        State,
        WatchRunRequest,
    )

    from services.cli.composition import Ground, build
    from services.cli.connection import client_of
    from services.runtime.channels import open_blocking_channel
    from services.runtime.embedding import embedded, embedded_settings
    from services.runtime.logs import configure_logging
    from services.runtime.object_store.opening import open_store
    from services.runtime.object_store.port import ObjectStore
    from services.runtime.settings import NOUNS, RuntimeSettings, load
    from services.runtime.status import remote_errors

    runtime = embedded_settings(load(RuntimeSettings))
    configure_logging(runtime)
    store = open_store(runtime.store)
    ground = Ground(runtime, cast("ObjectStore", WitnessedStore(store, journal)))
    with embedded(lambda: [build(noun, ground) for noun in NOUNS], runtime) as server:
        ground.own_address = f"127.0.0.1:{server.port}"
        with open_blocking_channel(ground.own_address, runtime) as channel, remote_errors():
            pipeline = client_of(dict.fromkeys(NOUNS, channel)).pipeline
            created = pipeline.CreateRun(CreateRunRequest(spec=RunSpec.FromString(spec))).run
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
