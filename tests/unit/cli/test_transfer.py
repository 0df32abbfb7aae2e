"""Files in and out over connections that break, between real servers and the command line."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.gateway_service_pb2_grpc import add_PipelineServiceServicer_to_server

from services.cli import transfer
from services.cli.connection import Client, client_of
from services.cli.progress import Progress
from services.errors import ConflictError, CorruptObjectError, UnavailableError
from services.gateway.audio_library import AudioLibrary
from services.gateway.servicer import GatewayServicer
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded
from services.runtime.messages import ref_to_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.server import Registration
from services.runtime.settings import NOUNS, RuntimeSettings

MEBIBYTE = 2**20
RUNTIME = RuntimeSettings(port=0, drain_seconds=0)


@contextmanager
def serving(root: Path) -> Iterator[int]:
    """A gateway's audio over a folder; its port."""

    def build() -> list[Registration]:
        library = AudioLibrary(FolderStore(root), max_upload_bytes=2**30)
        servicer = GatewayServicer(cast(Any, None), library)
        return [
            Registration(
                "demiurge.gateway.v1.PipelineService",
                lambda server: add_PipelineServiceServicer_to_server(servicer, server),
            )
        ]

    with embedded(build, RUNTIME, Metrics()) as server:
        yield server.port


class Wire:
    """A connection to wherever `port` says; it breaks after so many bytes in one direction."""

    def __init__(self) -> None:
        self.port = 0
        self.passed = {"up": 0, "down": 0}
        self.breaks: list[tuple[str, int]] = []
        """In this direction, after so many bytes in all; each happens once."""
        self.on_break: Callable[[], None] = lambda: None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()
        self._cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for ends in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                self.passed[direction] += len(data)
                where, after = self.breaks[0] if self.breaks else ("", 0)
                if where == direction and self.passed[direction] > after:
                    self.breaks.pop(0)
                    self.on_break()
                    break
                target.sendall(data)
        self._cut()

    def _cut(self) -> None:
        with suppress(IndexError):
            while end := self._open.pop():
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def client(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(transfer, "PAUSES_SECONDS", (0.05,) * 2)
    with open_blocking_channel(wire.address, RUNTIME) as channel:
        yield client_of(dict.fromkeys(NOUNS, channel))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def served(wire: Wire, store: FolderStore, tmp_path: Path) -> Iterator[None]:
    with serving(tmp_path / "store") as wire.port:
        yield


def stored(store: FolderStore, size: int = 4 * MEBIBYTE, seed: int = 1) -> tuple[ObjectRef, bytes]:
    content = np.random.default_rng(seed).bytes(size)
    return ref_to_message(store.put("renders/r/piece.wav", content)), content


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


@pytest.mark.usefixtures("served")
def test_a_download_goes_on_by_itself_where_its_connection_broke(
    wire: Wire, client: Client, store: FolderStore, tmp_path: Path
) -> None:
    reference, content = stored(store)
    wire.breaks = [("down", MEBIBYTE), ("down", 3 * MEBIBYTE)]

    transfer.download(client, reference, tmp_path / "out" / "piece.wav")

    assert not wire.breaks
    assert (tmp_path / "out" / "piece.wav").read_bytes() == content
    assert not parts(tmp_path / "out")
    # What was on its way at a break is sent again, and no more.
    assert wire.passed["down"] < 1.5 * len(content)


@pytest.mark.usefixtures("served")
def test_a_download_that_stays_broken_is_finished_by_the_same_call_later(
    wire: Wire, client: Client, store: FolderStore, tmp_path: Path
) -> None:
    reference, content = stored(store)
    wire.breaks = [("down", MEBIBYTE)]
    wire.on_break = lambda: setattr(wire, "port", 1)  # where nobody listens
    working = wire.port
    target = tmp_path / "piece.wav"

    with pytest.raises(UnavailableError, match=r"renders/r/piece\.wav.*goes on after \d+ of"):
        transfer.download(client, reference, target)

    assert not target.exists()
    (part,) = parts(tmp_path)
    arrived = part.read_bytes()
    assert 0 < len(arrived) < len(content)
    assert content.startswith(arrived)

    wire.port = working
    wire.passed["down"] = 0
    # The channel knows the address to be dead for a moment more.
    with open_blocking_channel(wire.address, RUNTIME) as channel:
        transfer.download(client_of(dict.fromkeys(NOUNS, channel)), reference, target)

    assert target.read_bytes() == content
    assert not parts(tmp_path)
    assert wire.passed["down"] < len(content) - len(arrived) + MEBIBYTE


def test_a_download_outlives_a_gateway_that_stops_and_comes_again(
    wire: Wire, client: Client, store: FolderStore, tmp_path: Path
) -> None:
    reference, content = stored(store, 64 * MEBIBYTE)
    target = tmp_path / "piece.wav"
    with ExitStack() as second, ExitStack() as first:
        wire.port = first.enter_context(serving(tmp_path / "store"))
        fetching = threading.Thread(target=transfer.download, args=(client, reference, target))
        fetching.start()
        while wire.passed["down"] < MEBIBYTE:
            time.sleep(0.001)
        first.close()
        assert fetching.is_alive()
        wire.port = second.enter_context(serving(tmp_path / "store"))
        fetching.join(60)
    assert target.read_bytes() == content


@pytest.mark.usefixtures("served")
def test_another_content_under_the_name_is_fetched_from_its_beginning(
    client: Client, store: FolderStore, tmp_path: Path
) -> None:
    target = tmp_path / "piece.wav"
    old, _ = stored(store, 1000, seed=1)
    (tmp_path / f".piece.wav.{old.sha256[:8]}.part").write_bytes(b"the beginning of the old")
    new, content = stored(store, 1000, seed=2)

    transfer.download(client, new, target)

    assert target.read_bytes() == content
    with pytest.raises(ConflictError, match="another content"):
        transfer.download(client, old, target)
    assert target.read_bytes() == content


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("damage", [b"not how it begins", bytes(2000)])
def test_what_was_left_damaged_never_gets_the_name(
    client: Client, store: FolderStore, tmp_path: Path, damage: bytes
) -> None:
    target = tmp_path / "piece.wav"
    reference, content = stored(store, 1000)
    (tmp_path / f".piece.wav.{reference.sha256[:8]}.part").write_bytes(damage)

    if len(damage) < len(content):
        with pytest.raises(CorruptObjectError, match=r"piece\.wav arrived damaged"):
            transfer.download(client, reference, target)
        assert not target.exists()
    transfer.download(client, reference, target)

    assert target.read_bytes() == content
    assert not parts(tmp_path)


def recordings(folder: Path, count: int = 3, size: int = MEBIBYTE) -> dict[str, bytes]:
    folder.mkdir()
    contents = {f"{seed}.wav": np.random.default_rng(seed).bytes(size) for seed in range(count)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


@pytest.mark.usefixtures("served")
def test_what_is_in_the_store_already_is_not_sent_again(
    wire: Wire, client: Client, store: FolderStore, tmp_path: Path
) -> None:
    contents = recordings(tmp_path / "birds")
    database = transfer.upload(client, tmp_path / "birds", Progress())
    assert [file.sha256 for file in database.files] == [
        hashlib.sha256(content).hexdigest() for content in contents.values()
    ]
    wire.passed["up"] = 0

    assert transfer.upload(client, tmp_path / "birds", Progress()) == database
    assert wire.passed["up"] < 10_000

    store.delete(database.files[1].key)
    assert transfer.upload(client, tmp_path / "birds", Progress()) == database
    assert MEBIBYTE < wire.passed["up"] < 1.5 * MEBIBYTE
    assert store.read(database.files[1].key) == contents["1.wav"]


@pytest.mark.usefixtures("served")
def test_an_upload_whose_connection_breaks_is_sent_again(
    wire: Wire, client: Client, store: FolderStore, tmp_path: Path
) -> None:
    # Beyond 16 MiB gRPC itself does not try again.
    contents = recordings(tmp_path / "birds", count=2, size=24 * MEBIBYTE)
    wire.breaks = [("up", 20 * MEBIBYTE), ("up", 60 * MEBIBYTE)]

    database = transfer.upload(client, tmp_path / "birds", Progress())

    assert not wire.breaks
    assert [store.read(file.key) for file in database.files] == list(contents.values())
