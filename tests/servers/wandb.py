"""As much of a W&B server as a training and an import speak to: GraphQL, file streams, artifacts.

Made from what the client (0.31) asks for: runs are created, resumed and read; their history, files
and artifacts are taken and handed out again. Nothing outlives the server.
"""

import base64
import gzip
import json
import re
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from tests.servers.wandb_records import (
    ENTITY,
    KEY,
    NOW,
    ONE_PAGE,
    PROJECT,
    Artifact,
    Json,
    Run,
    artifact_node,
    md5,
    project,
    run_node,
)


class WandB:
    """`with WandB() as server`: listening on loopback at `url`, for bearers of `KEY`.

    `runs` holds the runs of lab/demiurge by id. `failing` gives the status that paths with a
    certain beginning are answered with; `hanging` is such a beginning that is not answered at all,
    "/" for everything. `bytes_sent` counts by path. `forbidden` are ids of runs that the bearer
    may not see. `told` says another size of a file than it has.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.calls: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self.failing: dict[str, int] = {}
        self.hanging = ""
        self.forbidden: set[str] = set()
        self.told: dict[str, int] = {}
        self._artifacts: dict[str, tuple[Run, Artifact]] = {}
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """How a client is told of it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY}

    def artifact(self, run: Run, artifact: Artifact) -> None:
        """Puts an artifact into a run, as though it had been logged."""
        self._added(run, artifact)
        artifact.digest, artifact.committed = artifact.digest or "0" * 32, True
        entries = {
            name: {"digest": md5(content), "size": self.told.get(name, len(content))}
            for name, content in artifact.files.items()
        }
        policy = "wandb-storage-policy-v1"
        layout = {"storageLayout": "V2"}
        artifact.manifest = json.dumps(
            {
                "version": 1,
                "storagePolicy": policy,
                "storagePolicyConfig": layout,
                "contents": entries,
            }
        ).encode()

    def _added(self, run: Run, artifact: Artifact) -> str:
        number = f"artifact-{len(self._artifacts)}"
        known = (each for _, each in self._artifacts.values() if each.name == artifact.name)
        artifact.version = sum(1 for _ in known)
        self._artifacts[number] = (run, artifact)
        run.artifacts.append(artifact)
        return number

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of what is asked."""
        for beginning, status in self.failing.items():
            if path.startswith(beginning):
                return status, b'{"errors": [{"message": "as the test wants"}]}'
        while self.hanging and path.startswith(self.hanging) and not self._stopped.wait(0.05):
            pass
        with self._lock:
            if path == "/graphql":
                asked = json.loads(body)
                return self._graphql(asked["query"], asked.get("variables") or {})
            if path.endswith("/file_stream"):
                self._stream(self.runs[path.split("/")[-2]], json.loads(body))
                return 200, b"{}"
            return self._stored(method, [unquote(part) for part in path.split("/")[2:]], body)

    def _stream(self, run: Run, sent: Json) -> None:
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            for number, row in enumerate(history["content"], start=history["offset"]):
                run.rows[number] = json.loads(row)
        run.finished = run.finished or bool(sent.get("complete"))

    def _stored(self, method: str, path: list[str], body: bytes) -> tuple[int, bytes]:
        """A file of a run (/storage/runs/ID/NAME) or an artifact (/storage/artifacts/ID/NAME)."""
        kind, owner, *rest = path
        name = "/".join(rest)
        if kind == "runs":
            files = self.runs[owner].files
        else:
            artifact = self._artifacts[owner][1]
            if not name:
                if method == "PUT":
                    artifact.manifest = body
                return 200, artifact.manifest
            files = artifact.files
        if method == "PUT":
            files[name] = body
            return 200, b""
        return (200, files[name]) if name in files else (404, b"")

    def _graphql(self, query: str, variables: Json) -> tuple[int, bytes]:
        operation = re.search(r"(query|mutation)\s+(\w+)", query)
        name = operation.group(2) if operation else ""
        self.calls[name] += 1
        answer = getattr(self, f"_{_snake(name)}", None)
        if answer is None:
            message = f"this server does not know {name}"
            return 200, json.dumps({"data": None, "errors": [{"message": message}]}).encode()
        asked_for = variables.get("name") or variables.get("run") or variables.get("runName")
        if asked_for in self.forbidden:
            return 403, b'{"errors": [{"message": "permission denied"}]}'
        return 200, json.dumps({"data": answer(variables)}).encode()

    def _viewer(self, _: Json) -> Json:
        teams: Json = {"edges": [{"node": {"name": ENTITY}}]}
        person = {"entity": ENTITY, "username": "someone", "email": "someone@example.org"}
        return {"viewer": {"id": "viewer", "flags": "{}", "teams": teams, **person}}

    def _server_features_query(self, _: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def _organization_core_weave_organization_id(self, _: Json) -> Json:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _xx_hash_digests_enabled(self, _: Json) -> Json:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _fetch_artifact_digest_algorithm(self, _: Json) -> Json:
        return {"project": {"artifactType": None}}

    def _run_resume_status(self, asked: Json) -> Json:
        run = self.runs.get(asked["name"])
        if run is None:
            return {"model": {**project(), "bucket": None}}
        last = run.rows[max(run.rows)] if run.rows else {}
        status = {
            "id": asked["name"],
            "name": asked["name"],
            "summaryMetrics": json.dumps(last),
            "displayName": run.name,
            "logLineCount": 0,
            "historyLineCount": len(run.rows),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(last)] if last else []),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {**project(), "bucket": status}}

    def _upsert_bucket(self, asked: Json) -> Json:
        name = asked["name"] or asked["id"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run())
        run.name = asked.get("displayName") or run.name
        run.config = json.loads(asked.get("config") or "null") or run.config
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.name,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": project(),
            "historyLineCount": len(run.rows),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _create_run_files(self, asked: Json) -> Json:
        files = [
            {"name": name, "uploadUrl": self._url("runs", asked["run"], name)}
            for name in asked["files"]
        ]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def _mark_run_files_uploaded(self, _: Json) -> Json:
        return {"markRunFilesUploaded": {"success": True}}

    def _run_state(self, asked: Json) -> Json:
        state = "finished" if self.runs[asked["run"]].finished else "running"
        return {"project": {"run": {"id": asked["run"], "state": state}}}

    def _create_artifact(self, asked: Json) -> Json:
        wanted = asked["input"]
        run = self.runs[wanted["runName"]]
        artifact = Artifact(
            wanted["artifactCollectionName"],
            wanted["artifactTypeName"],
            json.loads(wanted.get("metadata") or "{}"),
            digest=wanted["digest"],
        )
        number = self._added(run, artifact)
        sequence = {"id": "sequence", "name": artifact.name, "latestArtifact": None}
        created = {"id": number, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": created}}

    def _create_artifact_manifest(self, asked: Json) -> Json:
        number = asked["artifactID"]
        file = {
            "id": "manifest",
            "uploadUrl": self._url("artifacts", number),
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}

    def _update_artifact_manifest(self, asked: Json) -> Json:
        number = asked["artifactManifestID"]
        file = {
            "id": "manifest",
            "uploadUrl": self._url("artifacts", number),
            "uploadHeaders": [],
        }
        return {"updateArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}

    def _create_artifact_files(self, asked: Json) -> Json:
        edges = []
        for wanted in asked["input"]["artifactFiles"]:
            number, name = wanted["artifactID"], wanted["name"]
            node = {
                "name": name,
                "storagePath": f"{number}/{name}",
                "uploadUrl": self._url("artifacts", number, name),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": number},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, asked: Json) -> Json:
        _, artifact = self._artifacts[asked["artifactID"]]
        artifact.committed = True
        told = {"id": asked["artifactID"], "digest": artifact.digest}
        return {"commitArtifact": {"artifact": told}}

    def _run(self, asked: Json) -> Json:
        run = self.runs.get(asked["name"])
        if run is None or (asked["entity"], asked["project"]) != (ENTITY, PROJECT):
            return {"project": None if asked["project"] != PROJECT else {"run": None}}
        return {"project": {"run": run_node(asked["name"], run)}}

    def _run_files(self, asked: Json) -> Json:
        run = self.runs[asked["name"]]
        edges = [
            {"node": self._file(asked["name"], name, content), "cursor": name}
            for name, content in run.files.items()
            if not asked["fileNames"] or name in asked["fileNames"]
        ]
        start = int(asked.get("fileCursor") or 0)
        limit = int(asked.get("fileLimit") or 50)
        page = edges[start : start + limit]
        for number, edge in enumerate(page, start=start + 1):
            edge["cursor"] = str(number)
        info = {"endCursor": str(start + len(page)), "hasNextPage": start + limit < len(edges)}
        files = {"edges": page, "pageInfo": info}
        told = {"fileCount": len(edges), "files": files}
        return {"project": {"internalId": "1", "run": told}}

    def _file(self, run_id: str, name: str, content: bytes) -> Json:
        url = self._url("runs", run_id, name)
        return {
            "id": name,
            "name": name,
            "url": url,
            "directUrl": url,
            "sizeBytes": self.told.get(name, len(content)),
            "mimetype": "application/octet-stream",
            "updatedAt": NOW,
            "md5": md5(content),
        }

    def _run_output_artifacts(self, asked: Json) -> Json:
        run = self.runs[asked["run"]]
        edges = [
            {"node": artifact_node(number, artifact)}
            for number, (owner, artifact) in self._artifacts.items()
            if owner is run and artifact.committed
        ]
        artifacts = {"totalCount": len(edges), "pageInfo": ONE_PAGE, "edges": edges}
        return {"project": {"run": {"artifacts": artifacts}}}

    def _artifact_by_id(self, asked: Json) -> Json:
        return {"artifact": artifact_node(asked["id"], self._artifacts[asked["id"]][1])}

    def _fetch_artifact_manifest(self, asked: Json) -> Json:
        url = self._url("artifacts", asked["id"])
        manifest = {"file": {"directUrl": url}}
        return {"artifact": {"currentManifest": manifest}}

    def _get_artifact_membership_file_urls(self, asked: Json) -> Json:
        number, artifact = next(
            (number, artifact)
            for number, (_, artifact) in self._artifacts.items()
            if artifact.name == asked["collection"] and asked["alias"] == f"v{artifact.version}"
        )
        edges = [
            {
                "node": {
                    "__typename": "File",
                    "name": name,
                    "directUrl": self._url("artifacts", number, name),
                }
            }
            for name in artifact.files
        ]
        files = {"pageInfo": ONE_PAGE, "edges": edges}
        membership = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": membership}}

    def _url(self, *parts: str) -> str:
        return "/".join([self.url, "storage", *(quote(part) for part in parts)])


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _handler(server: WandB) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            path = urlsplit(self.path).path
            stored = path.startswith("/storage/")
            wanted = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
            if not stored and self.headers.get("Authorization") != wanted:
                status, answer = 401, b'{"errors": [{"message": "user is not logged in"}]}'
            else:
                status, answer = server.answer(self.command, path, body)
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            server.bytes_sent[path] += len(answer)

        def handle(self) -> None:
            # Clients hang up as they like.
            with suppress(ConnectionError):
                super().handle()

        do_GET = do_PUT = do_POST = do_HEAD = handle_any  # noqa: N815 - http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
            """Says nothing."""

    return Handler
