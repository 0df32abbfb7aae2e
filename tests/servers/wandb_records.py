"""What a W&B server of the tests keeps of runs and artifacts, and how it tells of them."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

ENTITY, PROJECT = "lab", "demiurge"
KEY = "0123456789abcdef" * 2 + "01234567"
NOW = "2026-01-01T00:00:00Z"
ONE_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}

Json = dict[str, Any]


@dataclass
class Artifact:
    """A version of an artifact, its files by the names they have in it."""

    name: str
    kind: str
    metadata: Json = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    digest: str = ""
    version: int = 0
    committed: bool = False
    manifest: bytes = b""


@dataclass
class Run:
    """What was sent of a run: its rows of history by the offset they were sent with."""

    config: Json = field(default_factory=dict)
    name: str = ""
    rows: dict[int, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    finished: bool = False

    @property
    def history(self) -> list[Json]:
        """The rows in their order, without W&B's own figures."""
        return [
            {name: value for name, value in row.items() if not name.startswith("_")}
            | {"_step": row["_step"]}
            for _, row in sorted(self.rows.items())
        ]


def project() -> Json:
    return {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}


def artifact_node(number: str, artifact: Artifact) -> Json:
    return {
        "__typename": "Artifact",
        "id": number,
        "artifactSequence": {
            "__typename": "ArtifactSequence",
            "name": artifact.name,
            "project": {**project(), "internalId": "1"},
        },
        "versionIndex": artifact.version,
        "artifactType": {"name": artifact.kind},
        "description": None,
        "metadata": json.dumps(artifact.metadata),
        "ttlDurationSeconds": -1,
        "ttlIsInherited": True,
        "tags": [],
        "historyStep": None,
        "state": "COMMITTED",
        "size": sum(map(len, artifact.files.values())),
        "digest": artifact.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": "0",
        "fileCount": len(artifact.files),
        "createdAt": NOW,
        "updatedAt": None,
        "aliases": [],
    }


def md5(content: bytes) -> str:
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def run_node(name: str, run: Run) -> Json:
    """A run, as it is asked for by its id."""
    return {
        "projectId": "1",
        "id": name,
        "tags": [],
        "name": name,
        "displayName": run.name,
        "sweepName": None,
        "state": "finished" if run.finished else "running",
        "config": json.dumps(run.config),
        "group": None,
        "jobType": None,
        "commit": None,
        "readOnly": False,
        "createdAt": NOW,
        "heartbeatAt": NOW,
        "description": None,
        "notes": None,
        "systemMetrics": "{}",
        "summaryMetrics": "{}",
        "historyLineCount": len(run.rows),
        "user": {"name": "Someone", "username": "someone"},
        "historyKeys": None,
    }
