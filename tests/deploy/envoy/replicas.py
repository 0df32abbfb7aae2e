"""The services where their names lead: each at a loopback address of its own, port 50051."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from services.cli.composition import build, open_ground
from services.runtime.embedding import embedded
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.deploy.envoy.names import Names

PORT, HEALTH_PORT = 50051, 50050
# So that runs beside each other keep to themselves.
_NETWORK = f"127.{1 + os.getpid() % 250}.{1 + os.getpid() // 250 % 250}"


def host(number: int) -> str:
    """A loopback address of this process's own."""
    return f"{_NETWORK}.{number}"


def settings_at(place: str, folder: Path, **settings: object) -> RuntimeSettings:
    """Those of a service at that address."""
    own = {"bind_address": place, "port": PORT, "health_port": HEALTH_PORT, "drain_seconds": 5.0}
    return RuntimeSettings(home=folder, store=str(folder / "store"), **{**own, **settings})


@contextmanager
def served(noun: str, place: str, folder: Path, **settings: object) -> Iterator[None]:
    """One service at that address, drained afterwards; its peers are where `everyone` has them."""
    peers = {f"{each}_address": f"{host(1 + NOUNS.index(each))}:{PORT}" for each in NOUNS}
    runtime = settings_at(place, folder, **{**peers, **settings})
    ground = open_ground(runtime)
    with embedded(lambda: [build(noun, ground)], runtime, ground.metrics):
        yield


@contextmanager
def everyone(names: Names, folder: Path, **settings: object) -> Iterator[None]:
    """All six, and their names."""
    with ExitStack() as stack:
        for number, noun in enumerate(NOUNS, 1):
            stack.enter_context(served(noun, host(number), folder, **settings))
            names.addresses[noun] = [host(number)]
        yield
