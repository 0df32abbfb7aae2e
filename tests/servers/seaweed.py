"""A real S3 server for tests: SeaweedFS on loopback, to be killed, frozen and started anew."""

import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import urllib3
from minio import Minio
from minio.error import MinioException, ServerError

BUCKET = "demiurge-tests"
# Below the ports that systems give to outgoing connections, which would take one while it is down.
PORTS = range(10_000, 30_000)
READY_SECONDS = 60.0


class Seaweed:
    """`with Seaweed(folder) as server`: running inside the block, with what it stored in `folder`.

    It is reached as `environment` says (the DEMIURGE_S3_… variables). Each `location()` is a store
    of its own in one bucket: every bucket takes disk space by the gigabyte. `certificates` is a
    folder of own.pem, own.key and ca.pem, with which it speaks TLS.
    """

    def __init__(self, folder: Path, *, certificates: Path | None = None) -> None:
        program = Path(sys.executable).parent / "weed"
        self._program = str(program) if program.exists() else shutil.which("weed")
        assert self._program, "weed is not installed: make install"
        self._folder = folder
        self._certificates = certificates
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        self.access_key_file = folder / "access_key"
        self.secret_key_file = folder / "secret_key"
        self.access_key_file.write_text(secrets.token_hex(10))
        self.secret_key_file.write_text(secrets.token_hex(20) + "\n")
        self._ports = _free_ports(8)

    @property
    def endpoint(self) -> str:
        """Where S3 is served."""
        return f"http{'s' * bool(self._certificates)}://127.0.0.1:{self._ports[0]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Demiurge finds it; DEMIURGE_STORE is a `location()`."""
        return {
            "DEMIURGE_S3_ENDPOINT": self.endpoint,
            "DEMIURGE_S3_ACCESS_KEY_FILE": str(self.access_key_file),
            "DEMIURGE_S3_SECRET_KEY_FILE": str(self.secret_key_file),
        }

    def location(self) -> str:
        """A new, empty store in the one bucket."""
        return f"s3://{BUCKET}/{secrets.token_hex(8)}"

    def client(self) -> Minio:
        """A client that knows nothing of Demiurge."""
        return Minio(
            self.endpoint.partition("://")[2],
            access_key=self.access_key_file.read_text().strip(),
            secret_key=self.secret_key_file.read_text().strip(),
            secure=bool(self._certificates),
            region="us-east-1",
            http_client=self._http(),
        )

    def start(self) -> None:
        """Starts it and waits until it answers; what was stored before is there again."""
        assert not self._process, "it runs"
        s3, *others = self._ports
        certificates = self._certificates
        tls = (
            [
                f"-s3.cert.file={certificates / 'own.pem'}",
                f"-s3.key.file={certificates / 'own.key'}",
            ]
            if certificates
            else []
        )
        names = ("master", "volume", "filer")
        ports = [
            f"-{name}.port{suffix}={others.pop()}" for name in names for suffix in ("", ".grpc")
        ]
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": self.access_key_file.read_text().strip(),
            "AWS_SECRET_ACCESS_KEY": self.secret_key_file.read_text().strip(),
        }
        command = [
            str(self._program),
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-s3.port.grpc={others.pop()}",
            *ports,
            *tls,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam=false",
            "-s3.autoCreateBucket=false",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=128",
            "-volume.max=32",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills it at once, as a power cut would (SIGKILL)."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freezes it: connections are taken, nothing is answered."""
        assert self._process, "it does not run"
        os.killpg(self._process.pid, signal.SIGSTOP)
        # Returns when it stands still; it could answer until then.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Lets it go on."""
        assert self._process, "it does not run"
        os.killpg(self._process.pid, signal.SIGCONT)

    def unfinished(self, prefix: str) -> list[str]:
        """The names below `prefix` that have parts, but no end."""
        listed = self.client()._list_multipart_uploads(BUCKET, prefix=prefix)
        return [str(upload.object_name) for upload in listed.uploads]

    def _http(self) -> urllib3.PoolManager:
        trusted = self._certificates and str(self._certificates / "ca.pem")
        return urllib3.PoolManager(ca_certs=trusted, timeout=60)

    def _wait_until_ready(self) -> None:
        assert self._process
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(urllib3.exceptions.HTTPError, MinioException):
                self._use()
                return
            time.sleep(0.05)
        last_words = (self._folder / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS did not start:\n{last_words}")

    def _use(self) -> None:
        """Raises unless it serves: its parts find each other after it says that it is healthy."""
        health = self._http().request("GET", f"{self.endpoint}/healthz", retries=False)
        if health.status != 200:
            raise ServerError("not healthy", health.status)
        client = self.client()
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)
        client.put_object(BUCKET, "ready", io.BytesIO(b"1"), 1)
        client.get_object(BUCKET, "ready").release_conn()
        client.remove_object(BUCKET, "ready")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
