"""A client of a stack: one channel for as long as it is open, and who of the replicas answered."""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest, Run, RunSpec, WatchRunRequest
from demiurge.synth.v1.synth_service_pb2 import GenerateAudioRequest
from google.protobuf.duration_pb2 import Duration

from services.cli.connection import Client, client_of
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import NOUNS, RuntimeSettings
from services.runtime.status import remote_errors
from tests.conftest import MELGAN, UNAGAN
from tests.deploy.stack import Stack, container_logs

GENERATE = "/demiurge.synth.v1.SynthService/GenerateAudio"


@contextmanager
def client(stack: Stack) -> Iterator[Client]:
    """Stubs over one channel to the published address."""
    environment = stack.environment()
    fields: dict[str, Any] = {
        name.removeprefix("DEMIURGE_").lower(): value
        for name, value in environment.items()
        if name not in {"DEMIURGE_ADDRESS", "DEMIURGE_HOME"}
    }
    with open_blocking_channel(stack.address, RuntimeSettings(**fields)) as channel:
        yield client_of(dict.fromkeys(NOUNS, channel))


def generate(client: Client) -> None:
    """A sound that nobody has asked for before; raises our errors."""
    number = secrets.randbits(48)
    request = GenerateAudioRequest(
        unagan_model_id=UNAGAN,
        melgan_model_id=MELGAN,
        duration=Duration(nanos=50_000_000),
        seed=number,
        output_key=f"audio/scaling/{number}.wav",
    )
    with remote_errors():
        client.synth.GenerateAudio(request, timeout=60)


def ended(client: Client, spec: RunSpec) -> Run:
    """The run of `spec`, ended."""
    with remote_errors():
        run = client.pipeline.CreateRun(CreateRunRequest(spec=spec), timeout=60).run
        for message in client.pipeline.WatchRun(WatchRunRequest(run_id=run.id), timeout=300):
            run = message.run
    return run


def answered(stack: Stack, noun: str = "synth", method: str = GENERATE) -> dict[str, int]:
    """By container: how many calls of the method it has ended well."""
    return {each: answered_by(each, method) for each in stack.containers(noun)}


def answered_by(container: str, method: str = GENERATE) -> int:
    """The same of one container, by its access log."""
    records = container_logs(container)
    return sum(record.get("method") == method and record["code"] == "OK" for record in records)


class Steadily(threading.Thread):
    """`with Steadily(call) as load:` calls again and again, and keeps what went wrong."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._over = threading.Event()
        self.calls = 0
        self.errors: list[Exception] = []

    def run(self) -> None:
        """Until the block ends."""
        while not self._over.is_set():
            try:
                self._call()
            except Exception as error:
                self.errors.append(error)
            self.calls += 1

    def __enter__(self) -> "Steadily":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(300)
