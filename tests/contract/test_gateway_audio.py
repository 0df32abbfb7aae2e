"""Audio in and out through the gateway."""

import queue
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1 import gateway_service_pb2 as pb

from services.errors import (
    BusyError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    TimeExceededError,
)
from services.runtime.interceptors import around
from services.runtime.status import remote_errors
from tests.conftest import OpenStack, Stack, upload_messages
from tests.full_disk import files_of_at_most


def test_a_file_uploaded_twice_is_there_once_and_another_content_is_refused(
    shared: Stack,
) -> None:
    first = shared.upload("uploads", "a wren, singing.wav", b"one")
    assert first.key == "audio/uploads/a wren, singing.wav"
    assert shared.upload("uploads", "a wren, singing.wav", b"one") == first

    with pytest.raises(ConflictError, match=r"a wren, singing\.wav"):
        shared.upload("uploads", "a wren, singing.wav", b"two")

    assert shared.store.read(first.key) == b"one"


def test_bytes_that_do_not_fit_the_announced_hash_are_not_stored(shared: Stack) -> None:
    header, *_ = upload_messages("uploads", "wrong.wav", b"announced")
    before = shared.files()

    with pytest.raises(InvalidInputError, match=r"wrong\.wav.*SHA-256"):
        shared.send([header, pb.UploadAudioRequest(data=b"sent")])

    assert shared.files() == before


def test_a_file_beyond_the_limit_is_refused_and_not_stored(
    open_stack: OpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_GATEWAY_MAX_UPLOAD_BYTES", "100000")
    with open_stack(tmp_path) as stack:
        stack.upload("uploads", "fits.wav", bytes(100_000))
        before = stack.files()

        with pytest.raises(InvalidInputError, match=r"large\.wav.*larger than 100000"):
            stack.upload("uploads", "large.wav", bytes(100_001))

        assert stack.files() == before


@pytest.mark.parametrize("order", [[], [1], [1, 0], [0, 0, 1], [0, 1, 0]])
def test_an_upload_is_one_header_and_then_data(shared: Stack, order: list[int]) -> None:
    messages = upload_messages("uploads", "order.wav", b"some data")
    before = shared.files()

    with pytest.raises(InvalidInputError, match="header"):
        shared.send([messages[which] for which in order])

    assert shared.files() == before


def test_a_download_resumes_where_it_broke_off(shared: Stack) -> None:
    content = np.random.default_rng(1).bytes(150_000)
    stored = shared.upload("uploads", "long.wav", content)

    def fetched(offset: int) -> tuple[list[bytes], list[bool]]:
        request = pb.DownloadAudioRequest(key=stored.key, offset_bytes=offset)
        messages = list(shared.call(shared.client.pipeline.DownloadAudio, request))
        assert messages[0].object == stored
        return [message.data for message in messages], [
            message.HasField("object") for message in messages
        ]

    parts, named = fetched(0)
    assert b"".join(parts) == content
    assert max(map(len, parts)) <= 65536
    assert named == [True, False, False]
    assert b"".join(fetched(70_000)[0]) == content[70_000:]
    assert fetched(150_000)[0] == [b""]


@pytest.mark.parametrize(
    ("key", "offset", "error", "culprit"),
    [
        ("audio/uploads/nothing.wav", 0, NotFoundError, r"nothing\.wav"),
        ("models/melgan/voice/best.json", 0, InvalidInputError, "key"),
        ("audio/../models/melgan/voice/best.json", 0, InvalidInputError, r"audio/\.\./models"),
        ("audio/prediction/1.wav", 10**9, InvalidInputError, r"prediction/1\.wav has .* bytes"),
    ],
)
def test_a_download_of_what_is_not_there_is_refused_by_name(
    shared: Stack, key: str, offset: int, error: type[Exception], culprit: str
) -> None:
    request = pb.DownloadAudioRequest(key=key, offset_bytes=offset)
    with pytest.raises(error, match=culprit), remote_errors():
        list(shared.client.pipeline.DownloadAudio(request))


def test_a_database_is_listed_by_name_in_pages(shared: Stack) -> None:
    names = ["a.wav", "b c.wav", "ä.wav", "Z.wav", "10.wav"]
    for name in names:
        shared.upload("listed", name, name.encode())

    listed: list[str] = []
    sizes, token = [], ""
    while token or not listed:
        request = pb.ListAudioRequest(database="listed", page_size=2, page_token=token)
        page = shared.call(shared.client.pipeline.ListAudio, request)
        listed += [file.key for file in page.audio]
        sizes.append(len(page.audio))
        token = page.next_page_token

    assert listed == [f"audio/listed/{name}" for name in sorted(names)]
    assert sizes == [2, 2, 1]


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files wait on their way in."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Sender:
    """An upload that sends when it is told to."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._messages: queue.Queue[pb.UploadAudioRequest | None] = queue.Queue()
        self.call = stack.client.pipeline.UploadAudio.future(iter(self._messages.get, None))
        header, self._data = upload_messages("uploads", name, b"some data")
        self._messages.put(header)

    def finish(self) -> ObjectRef:
        self._messages.put(self._data)
        self.leave()
        return self.call.result(timeout=20).audio

    def leave(self) -> None:
        self._messages.put(None)


def waiting(spool: Path) -> list[str]:
    """Where the files without names lie that this process has open in `spool`."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [place for place in found if place.startswith(str(spool))]


def comes_true(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_an_upload_that_stalls_is_ended_with_a_word_and_leaves_nothing(
    open_stack: OpenStack, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_GATEWAY_UPLOAD_IDLE_SECONDS", "0.3")
    with open_stack(tmp_path) as stack:
        before = stack.files()
        stalled = Sender(stack, "stalled.wav")

        with pytest.raises(TimeExceededError, match="UPLOAD_IDLE_SECONDS"), remote_errors():
            stalled.call.result(timeout=20)

        assert comes_true(lambda: not waiting(spool))
        assert stack.files() == before
        stalled.leave()


def test_a_client_that_goes_away_leaves_nothing(shared: Stack, spool: Path) -> None:
    before = shared.files()
    sender = Sender(shared, "left.wav")
    assert comes_true(lambda: bool(waiting(spool)))

    sender.call.cancel()

    assert comes_true(lambda: not waiting(spool))
    assert shared.files() == before
    sender.leave()


def test_more_uploads_at_once_than_may_are_told_to_come_again(
    open_stack: OpenStack, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_GATEWAY_UPLOADS", "2")
    with open_stack(tmp_path) as stack:
        senders = [Sender(stack, f"{number}.wav") for number in range(2)]
        assert comes_true(lambda: len(waiting(spool)) == 2)

        with pytest.raises(BusyError, match=r"third\.wav.*DEMIURGE_GATEWAY_UPLOADS"):
            stack.upload("uploads", "third.wav", b"third")

        assert [sender.finish().key for sender in senders] == [
            "audio/uploads/0.wav",
            "audio/uploads/1.wav",
        ]
        assert comes_true(lambda: not waiting(spool))
        stack.upload("uploads", "third.wav", b"third")


def test_more_downloads_at_once_than_may_are_told_to_come_again_and_idle_ones_end(
    open_stack: OpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_GATEWAY_DOWNLOADS", "1")
    with open_stack(tmp_path) as stack:
        # More than is under way between the two of them.
        large = stack.upload("downloads", "large.wav", bytes(32 * 2**20))
        small = stack.upload("downloads", "small.wav", b"small")
        download = stack.client.pipeline.DownloadAudio

        def fetched() -> bytes:
            request = pb.DownloadAudioRequest(key=small.key)
            return b"".join(
                message.data for message in stack.call(lambda r: [*download(r)], request)
            )

        def free() -> bool:
            with suppress(BusyError):
                return fetched() == b"small"
            return False

        reading = download(pb.DownloadAudioRequest(key=large.key))
        assert next(reading).data
        with pytest.raises(BusyError, match=r"small\.wav.*DEMIURGE_GATEWAY_DOWNLOADS"):
            fetched()
        reading.cancel()
        assert comes_true(free)

        monkeypatch.setattr(around, "STALLED_SECONDS", 0.3)
        stopped = download(pb.DownloadAudioRequest(key=large.key))
        assert next(stopped).data
        assert comes_true(free)
        with pytest.raises(grpc.RpcError):
            list(stopped)


def test_an_upload_that_the_disk_has_no_room_for_says_so_and_leaves_nothing(
    shared: Stack, spool: Path
) -> None:
    before = shared.files()

    with (
        files_of_at_most(2**20),
        pytest.raises(StorageFullError, match=r"large\.wav.*no room.*TMPDIR"),
    ):
        shared.upload("uploads", "large.wav", bytes(3 * 2**20))

    assert comes_true(lambda: not waiting(spool))
    assert shared.files() == before
    shared.upload("uploads", "large.wav", bytes(3 * 2**20))


def test_a_download_goes_on_with_the_same_content_or_not_at_all(shared: Stack) -> None:
    stored = shared.upload("uploads", "same.wav", b"the same")

    def fetched(sha256: str) -> bytes:
        request = pb.DownloadAudioRequest(key=stored.key, offset_bytes=4, sha256=sha256)
        with remote_errors():
            return b"".join(
                message.data for message in shared.client.pipeline.DownloadAudio(request)
            )

    assert fetched(stored.sha256) == b"same"
    with pytest.raises(ConflictError, match=r"same\.wav is another content"):
        fetched("f" * 64)


def test_predicted_descriptors_may_be_downloaded_and_other_records_of_a_run_may_not(
    shared: Stack,
) -> None:
    key = "runs/run-1/predictions/1.json"
    shared.store.put(key, b"[]")

    messages = shared.call(shared.client.pipeline.DownloadAudio, pb.DownloadAudioRequest(key=key))
    assert b"".join(message.data for message in messages) == b"[]"
    for refused in ("runs/run-1/request.json", "runs/run-1/predictions/../request.json"):
        request = pb.DownloadAudioRequest(key=refused)
        with pytest.raises(InvalidInputError), remote_errors():
            list(shared.client.pipeline.DownloadAudio(request))
