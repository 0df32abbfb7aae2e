"""No secret comes out: not in logs, answers, records or files, however calls and services end."""

import base64
import os
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.opening import open_store
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.conftest import MELGAN, PREDICTOR, UNAGAN, sound
from tests.e2e.processes import Processes, free_port
from tests.e2e.workspace import Workspace
from tests.servers.seaweed import Seaweed

SECRETS = {
    "token": "tok/s3cr3t+0f~the;lab=",
    "expired": "0ld-tok/s3cr3t+retired=",
    "wrong": "wr0ng+guess/of-a~token=",
    "qdrant-api-key": "qdr4nt/k3y+for~vectors=",
    "wrong-s3-key": "wr0ng/s3+k3y~guess=",
    "wandb": "w4ndbk3y" * 5,
}
METRICS = free_port()
TRAINING = (
    *("train", "predictor", "--recorded", "sounds", "--window-size", "5", "--hidden-size", "4"),
    *("--num-layers", "1", "--steps", "2", "--every", "1"),
)


def forms(secret: str) -> set[bytes]:
    """The secret, and how it looks in headers, URLs and records."""
    plain = secret.encode()
    # Wherever in what was encoded it stood.
    encoded = {
        base64.b64encode(b"\0" * before + plain + b"\0" * 3)[before + (before > 0) : -8]
        for before in range(3)
    }
    quoted = {urllib.parse.quote(secret, safe=safe).encode() for safe in ("", "/", "/+=~;")}
    return {plain, plain.hex().encode(), *encoded, *quoted}


def leaked(secrets: dict[str, str], written: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (name, place)
        for place, content in written.items()
        for name, secret in secrets.items()
        if any(form in content for form in forms(secret))
    ]


@pytest.mark.parametrize("name", SECRETS)
def test_the_search_finds_a_secret_in_every_form(name: str) -> None:
    secret = SECRETS[name]
    for content in (
        f"x{secret}y",
        urllib.parse.quote(secret, safe=""),
        *(base64.b64encode(f"{'u:'[:n]}{secret}".encode()).decode() for n in range(3)),
        base64.b64encode(f"Bearer {secret} and more".encode()).decode(),
    ):
        assert leaked({name: secret}, {"log": content.encode()}), content


@pytest.fixture
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets' own files."""
    folder = tmp_path_factory.mktemp("kept")
    for name, value in SECRETS.items():
        (folder / name).write_text(value)
    (folder / "token").write_text(
        f"{SECRETS['token']}\n{SECRETS['expired']} 2020-01-01T00:00:00Z\n"
    )
    return folder


@pytest.fixture
def settings(kept: Path, seaweed: Seaweed, tmp_path: Path) -> dict[str, str]:
    return seaweed.environment | {
        "DEMIURGE_STORE": seaweed.location(),
        "DEMIURGE_HOME": str(tmp_path / "home"),
        "DEMIURGE_TOKEN_FILE": str(kept / "token"),
        "DEMIURGE_PREDICTOR_TOKEN_FILE": str(kept / "token"),
        "WANDB_API_KEY": SECRETS["wandb"],
        "WANDB_MODE": "offline",
    }


@pytest.fixture
def processes(
    settings: dict[str, str],
    trained_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Processes]:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    store, models = open_store(RuntimeSettings()), FolderStore(trained_models)
    for key in models.keys(""):
        store.put(key, models.read(key))
    processes = Processes(tmp_path, settings)
    try:
        for noun in NOUNS:
            processes.start(
                noun,
                DEMIURGE_LOG_LEVEL="debug",
                # The gateway's alone: it speaks with all.
                **({"DEMIURGE_METRICS_PORT": str(METRICS)} if noun == "gateway" else {}),
            )
        for noun in NOUNS:
            processes.wait_for(noun)
        yield processes
    finally:
        processes.close()


def test_no_secret_is_told_by_services_and_command_in_peace_and_in_trouble(
    processes: Processes, settings: dict[str, str], kept: Path, seaweed: Seaweed, tmp_path: Path
) -> None:
    said: dict[str, bytes] = {}
    addresses = {f"DEMIURGE_{noun.upper()}_ADDRESS": processes.addresses[noun] for noun in NOUNS}
    client = Workspace(tmp_path, settings | addresses | {"DEMIURGE_LOG_LEVEL": "debug"})
    for folder in ("sounds", "prediction"):
        (tmp_path / folder).mkdir()
        for seed in (1, 2):
            (tmp_path / folder / f"{seed}.wav").write_bytes(sound(1.0, seed))
    run = (
        *("run", "--prediction", "prediction", "--duration", "0.7", "--files", "2", "--seed", "3"),
        *("--file-duration", "0.5", "--out", "out"),
        *("--unagan", UNAGAN, "--melgan", MELGAN, "--predictor", PREDICTOR),
    )

    def tell(place: Workspace, name: str, *call: str, code: int = 0) -> None:
        done = place.run(*call)
        said[name] = f"{done.stdout}{done.stderr}".encode()
        assert done.returncode == code, done.stderr

    tell(client, "run", *run)
    tell(client, "models", "models")
    tell(client, "runs", "runs")
    tell(client, "train", *TRAINING)
    for noun in ("wrong", "expired"):
        refused = client.given(DEMIURGE_TOKEN_FILE=str(kept / noun))
        tell(refused, f"token {noun}", "runs", code=1)
    (kept / "own-expired").write_text(f"{SECRETS['token']} 2020-01-01")
    for name in ("own-expired", "absent"):
        tell(client.given(DEMIURGE_TOKEN_FILE=str(kept / name)), name, "runs", code=1)
    authority = Path(__file__).parent / "not-there.pem"
    tell(client.given(DEMIURGE_TLS_CA=str(authority)), "no authority", "runs", code=1)
    wrong_key = {"DEMIURGE_S3_SECRET_KEY_FILE": str(kept / "wrong-s3-key")}
    tell(client.given(**wrong_key), "wrong key", "doctor", code=1)
    for message in (b"\xff" * 100, SECRETS["wrong"].encode()):
        with grpc.insecure_channel(processes.addresses["gateway"]) as channel:
            call = channel.unary_unary("/demiurge.gateway.v1.PipelineService/GetRun")
            with pytest.raises(grpc.RpcError) as answered:
                call(message, metadata=[("authorization", f"Bearer {SECRETS['wrong']}")])
            said[f"garbage {message[:1]!r}"] = str(answered.value).encode()

    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics") as answer:
        said["metrics"] = answer.read()
    assert b"demiurge_" in said["metrics"]

    # A crash with a dump of all threads, a store that goes away, an index that refuses.
    os.kill(processes._processes["playback"].pid, signal.SIGABRT)
    processes._processes["playback"].wait()
    processes.restart(
        "query",
        DEMIURGE_LOG_LEVEL="debug",
        DEMIURGE_QUERY_URL=f"http://127.0.0.1:{free_port()}",
        DEMIURGE_QUERY_API_KEY_FILE=str(kept / "qdrant-api-key"),
    )
    processes.kill("synth")
    processes.start("synth", DEMIURGE_LOG_LEVEL="debug", **wrong_key)
    assert processes._processes["synth"].wait(60) == 1
    tell(client, "no index", "doctor", "--deep", code=1)
    tell(client, "no synth", *run[:-1], "nobody", code=1)

    for path in tmp_path.rglob("*"):
        if path.is_file():
            said[str(path.relative_to(tmp_path))] = path.read_bytes()
    store = open_store(RuntimeSettings())
    said |= {key: store.read(key) for key in store.keys("")}
    assert any(name.endswith(".log") and said[name] for name in said)
    assert any("wandb" in name for name in said)
    assert any(name.startswith("runs/") for name in said)
    secrets = SECRETS | {
        "access": seaweed.access_key_file.read_text().strip(),
        "secret": seaweed.secret_key_file.read_text().strip(),
    }
    assert not leaked(secrets, said)
