"""One container of an image, held to what stacks hold theirs to: only volumes can be written."""

import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests.deploy.stack import CommandError, docker

GUARDED = (
    *("--read-only", "--tmpfs", "/tmp:size=64m", "--cap-drop", "ALL"),  # noqa: S108
    *("--security-opt", "no-new-privileges", "--pids-limit", "512"),
)
HEALTHY_SECONDS = 120.0
# Where the gateway looks for the others; it starts without them.
PEERS = [
    part
    for noun in ("synth", "descriptor", "predictor", "query", "playback")
    for part in ("--env", f"DEMIURGE_{noun.upper()}_ADDRESS={noun}.invalid:50051")
]


class Container:
    """A container that runs, by its id."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def state(self) -> dict[str, Any]:
        """What Docker knows of its process and health."""
        [found] = json.loads(docker("inspect", self.identity))
        return dict(found["State"])

    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`."""
        return str(self.state()["Health"]["Status"])

    def wait_until(self, health: str) -> None:
        """Returns once Docker says so; AssertionError if it ended, or after two minutes."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        while self.health() != health:
            assert self.state()["Running"], self.logs()
            assert time.monotonic() < deadline, f"{self.health()}, not {health}:\n{self.logs()}"
            time.sleep(0.2)

    def address(self, port: int) -> str:
        """host:port at which this port of it is published."""
        return docker("port", self.identity, f"{port}/tcp").split()[0]

    def execute(self, *command: str) -> str:
        """What a command in it printed."""
        return docker("exec", self.identity, *command)

    def signal(self, name: str) -> None:
        """Sends a signal to its first process, from outside, so that even STOP reaches it."""
        docker("kill", "--signal", name, self.identity)

    def restart(self) -> None:
        """Starts it again after its end."""
        docker("start", self.identity)

    def listening(self) -> set[int]:
        """The TCP ports that others than itself reach."""
        tables = self.execute("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        rows = [line.split() for line in tables if ":" in line]
        sockets = [local.split(":") for _, local, _, state, *_ in rows if state == "0A"]
        loopback = ("0100007F", "00000000000000000000000001000000")
        return {int(port, 16) for address, port in sockets if address not in loopback}

    def end(self) -> int:
        """Waits for the end of its process: the exit code."""
        return int(docker("wait", self.identity))

    def logs(self) -> str:
        """Standard output and standard error."""
        command = ["docker", "logs", self.identity]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout


@contextlib.contextmanager
def running(
    image: str, *command: str, options: Sequence[str] = (), health_seconds: float = 2
) -> Iterator[Container]:
    """A container with these options of `docker run`, gone with its volumes afterwards.

    Its health is asked for every `health_seconds`, not every ten.
    """
    probes = (
        *("--health-interval", f"{health_seconds}s", "--health-timeout", "5s"),
        *("--health-start-period", "0s", "--health-retries", "1000"),
    )
    name = f"demiurge-{secrets.token_hex(4)}"
    identity = docker(
        *("run", "--detach", "--name", name, *GUARDED, *probes, *options, image, *command)
    ).strip()
    try:
        yield Container(identity)
    finally:
        docker("rm", "--force", "--volumes", identity)


def output(image: str, *command: str, options: Sequence[str] = (), entrypoint: str = "") -> str:
    """What one command in a container of its own printed."""
    instead = ("--entrypoint", entrypoint) if entrypoint else ()
    return docker("run", "--rm", *GUARDED, *instead, *options, image, *command)


def refused(image: str, *command: str, options: Sequence[str] = (), entrypoint: str = "") -> str:
    """What one command that fails said."""
    try:
        said = output(image, *command, options=options, entrypoint=entrypoint)
    except CommandError as error:
        return f"{error.stdout}{error.stderr}"
    raise AssertionError(f"it did not fail: {said}")
