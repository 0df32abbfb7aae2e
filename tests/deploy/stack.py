"""One Compose project: docker-compose.yml with overlays, for tests to bring up and break.

It drives the Docker and Compose commands that an engineer uses, and kills processes from the host,
for Docker takes its own `kill` for a wish that a container stay down.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
# Below the ports that systems give to outgoing connections, which would take one while it is down.
PORTS = range(20_000, 30_000)
UP_SECONDS = 180
# Small, and soon aware of what changes.
SETTINGS = {
    "COMPOSE_PROFILES": "minio",
    "HEALTH_INTERVAL": "2s",
    "MAX_CONNECTION_AGE_SECONDS": "5",
    "DRAIN_SECONDS": "20",
    "SYNTH_CPUS": "1",
    "SYNTH_MEMORY": "2g",
    "DESCRIPTOR_CPUS": "1",
    "PREDICTOR_CPUS": "1",
    "PREDICTOR_MEMORY": "2g",
    "QUERY_CPUS": "1",
    "QUERY_MEMORY": "1g",
    "TRAIN_CPUS": "1",
    "TRAIN_MEMORY": "4g",
}


class Stack:
    """`with Stack(folder) as stack`: up and healthy inside the block, gone with its volumes after.

    `overlays` are names in deploy/compose, `settings` the variables of .env; `folder` holds its
    secrets and certificates. Its published port stays the same however often Envoy is restarted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        overlays: Sequence[str] = ("seaweedfs", "tests"),
        settings: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        self.project = f"demiurge-{secrets.token_hex(4)}"
        self.folder = folder
        self.port = free_port()
        self.secrets = folder / "secrets"
        self.certificates = folder / "certificates" if "tls" in overlays else None
        self.first_started: dict[str, str] = {}
        """By service: when it was, in ISO 8601; whatever was restarted since."""
        self._cut: list[tuple[str, str, str]] = []
        self._files = [
            ROOT / "docker-compose.yml",
            *(COMPOSE / f"{overlay}.yml" for overlay in overlays),
            *files,
        ]
        self._settings = SETTINGS | {
            "PUBLISHED_PORT": str(self.port),
            "SECRETS_FOLDER": str(self.secrets),
            **({"CERTIFICATES_FOLDER": str(self.certificates)} if self.certificates else {}),
            **(settings or {}),
        }

    @property
    def address(self) -> str:
        """host:port that a client calls: Envoy's, and nothing else is published."""
        # By name under TLS: certificates carry it.
        return f"{'localhost' if self.certificates else '127.0.0.1'}:{self.port}"

    @property
    def token(self) -> str:
        """The bearer token."""
        return (self.secrets / "token").read_text().strip()

    def environment(self) -> dict[str, str]:
        """Variables with which the `demiurge` command, or RuntimeSettings, reach the stack."""
        token = str(self.secrets / "token")
        own = {
            "DEMIURGE_ADDRESS": self.address,
            "DEMIURGE_TOKEN_FILE": token,
            "DEMIURGE_HOME": str(self.folder / "home"),
        }
        if self.certificates:
            client = self.certificates / "client"
            own |= {
                "DEMIURGE_TLS_CA": str(client / "ca.crt"),
                "DEMIURGE_TLS_CERTIFICATE": str(client / "tls.crt"),
                "DEMIURGE_TLS_KEY": str(client / "tls.key"),
            }
        return own

    def up(self, *arguments: str) -> None:
        """Starts everything, or the services named, and returns once all are healthy."""
        self.make_secrets()
        wait = ("--wait", "--wait-timeout", str(UP_SECONDS))
        try:
            self.compose("up", "--detach", "--no-build", "--quiet-pull", *wait, *arguments)
        except subprocess.CalledProcessError as error:
            states = self.compose("ps", "--all")
            raise RuntimeError(f"{error.stderr}\n{states}\n{self.logs()[-6000:]}") from None
        for container in self.containers():
            known = self.inspect(container)
            noun = known["Config"]["Labels"]["com.docker.compose.service"]
            self.first_started.setdefault(noun, known["State"]["StartedAt"])

    def make_secrets(self) -> None:
        """What an engineer makes before the first start."""
        run([str(COMPOSE / "make-secrets.sh"), str(self.secrets)])
        if self.certificates:
            run([str(COMPOSE / "make-certificates.sh"), str(self.certificates)])

    def down(self) -> None:
        """Removes containers, networks and volumes."""
        every = ("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1")
        self.compose(*every)

    def demiurge(
        self, *arguments: str, settings: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """The command, as a client outside runs it; `settings` go before `environment()`."""
        script = str(Path(sys.executable).parent / "demiurge")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DEMIURGE_")}
        done = subprocess.run(
            [script, *arguments],
            env=kept | self.environment() | (settings or {}),
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise CommandError(done.returncode, done.args, done.stdout, done.stderr)
        return done

    def run(self, service: str, *arguments: str, options: Sequence[str] = ()) -> str:
        """`docker compose run --rm`: what a one-off container of the service printed."""
        return self.compose("run", "--rm", "--no-deps", "-T", *options, service, *arguments)

    def import_models(self) -> None:
        """Takes every model of FILES_FOLDER into the store, by one container."""
        each = (
            "for best in /files/models/*/*/best.json; do demiurge import ${best%/*} || exit; done"
        )
        self.run("demiurge", "-c", each, options=("--entrypoint", "sh"))

    def execute(self, noun: str, *command: str, number: int = 0) -> str:
        """What a command printed inside a running container."""
        return docker("exec", self.containers(noun)[number], *command)

    def scale(self, noun: str, count: int) -> None:
        """So many replicas, healthy; those there are stay as they are."""
        quiet = ("--detach", "--no-build", "--no-deps", "--no-recreate", "--wait")
        self.compose("up", *quiet, "--scale", f"{noun}={count}", noun)

    def containers(self, noun: str = "") -> list[str]:
        """Ids of the containers of a service, running or not, by replica number."""
        wanted = [f"com.docker.compose.project={self.project}"]
        wanted += [f"com.docker.compose.service={noun}"] if noun else []
        filters = [part for label in wanted for part in ("--filter", f"label={label}")]
        number = '{{.Label "com.docker.compose.container-number"}}'
        listed = docker("ps", "--all", "--no-trunc", *filters, "--format", f"{number} {{{{.ID}}}}")
        rows = [line.split() for line in listed.splitlines()]
        return [identity for _, identity in sorted((int(count), row) for count, row in rows)]

    def inspect(self, container: str) -> dict[str, Any]:
        """What `docker inspect` knows of a container."""
        [found] = json.loads(docker("inspect", container))
        return dict(found)

    def kill(self, noun: str, number: int = 0) -> None:
        """SIGKILL of the main process, as a crash: the restart policy brings it back."""
        container = self.containers(noun)[number]
        pid = self.inspect(container)["State"]["Pid"]
        assert pid, f"{noun} does not run"
        try:
            os.kill(pid, signal.SIGKILL)
        except PermissionError:
            # Whoever may use Docker may do this, too.
            code = f"import os; os.kill({pid}, {signal.SIGKILL:d})"
            as_root = ("--pid=host", "--user=0", "--entrypoint=python")
            docker("run", "--rm", *as_root, self.inspect(container)["Image"], "-c", code)

    def pause(self, noun: str) -> None:
        """Freezes every replica: connections are taken, nothing is answered."""
        docker("pause", *self.containers(noun))

    def unpause(self, noun: str) -> None:
        """Lets them go on; one that was killed meanwhile, and started anew, is not frozen."""
        for container in self.containers(noun):
            if self.inspect(container)["State"]["Paused"]:
                docker("unpause", container)

    def cut(self, noun: str, *networks: str) -> None:
        """Takes every replica off these networks of docker-compose.yml, or off all of its own.

        The six are on two, `services` and `objects`, and find each other by either.
        """
        for container in self.containers(noun):
            joined = self.inspect(container)["NetworkSettings"]["Networks"]
            wanted = [f"{self.project}_{network}" for network in networks] or list(joined)
            for network in wanted:
                docker("network", "disconnect", network, container)
                self._cut.append((container, network, noun))

    def mend(self, noun: str) -> None:
        """Puts them back where they were, under the same name."""
        for container, network, name in self._cut:
            if name == noun:
                docker("network", "connect", "--alias", noun, network, container)
        self._cut = [row for row in self._cut if row[2] != noun]

    def stop(self, noun: str) -> None:
        """SIGTERM to every replica; returns when they have drained and ended."""
        self.compose("stop", noun)

    def start(self, noun: str) -> None:
        """Starts what was stopped, and returns once it is healthy."""
        self.compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--wait", noun)

    def restart(self, noun: str) -> None:
        """Stop, then start."""
        self.stop(noun)
        self.start(noun)

    def wait(self) -> None:
        """Returns once all are healthy again: after a kill, a pause or a cut."""
        # Compose's own waiting ends at once with whoever is still unhealthy.
        deadline = time.monotonic() + UP_SECONDS
        while sick := self._sick():
            assert time.monotonic() < deadline, f"not healthy: {sick}\n{self.logs()[-6000:]}"
            time.sleep(0.2)

    def _sick(self) -> list[str]:
        form = "{{.State.Status}} {{.State.Health.Status}} {{.Name}}"
        states = docker("inspect", "--format", form, *self.containers()).splitlines()
        return [state for state in states if not state.startswith("running healthy ")]

    def logs(self, *nouns: str) -> str:
        """Everything that these, or all, have logged; a line each, without Compose's prefixes."""
        return self.compose("logs", "--no-log-prefix", "--no-color", *nouns)

    def memory_bytes(self, noun: str) -> int:
        """Resident memory of all processes of every replica."""
        listed = [docker("top", container, "-eo", "pid,rss") for container in self.containers(noun)]
        rows = [line.split() for text in listed for line in text.splitlines()[1:]]
        return sum(int(kibibytes) * 1024 for _, kibibytes in rows)

    def compose(self, *arguments: str) -> str:
        """What Compose printed for this project; raises CalledProcessError with its words."""
        files = [part for path in self._files for part in ("--file", str(path))]
        command = [*compose_command(), *files, "--project-name", self.project]
        # Another's settings in this shell are not this stack's.
        known = {"PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "TMPDIR"}
        kept = {name: value for name, value in os.environ.items() if name in known}
        return run(
            [*command, "--progress", "quiet", *arguments], kept | self._settings, timeout=600
        )

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


@cache
def compose_command() -> tuple[str, ...]:
    """`docker compose`, or `docker-compose` where the plugin is not installed; () without both."""
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


def docker(*arguments: str) -> str:
    """What the docker command printed."""
    return run(["docker", *arguments], timeout=120)


def container_logs(container: str) -> list[dict[str, Any]]:
    """The log records of one container, whichever process of it wrote them: each a JSON object."""
    # Services log to stderr, where `run` does not look.
    lines = run(["sh", "-c", f"exec docker logs {container} 2>&1"]).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 60
) -> str:
    """What a command printed; raises CalledProcessError, which carries what it said."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        raise CommandError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


class CommandError(subprocess.CalledProcessError):
    """A command that failed, with its words in the message."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout}{self.stderr}"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
