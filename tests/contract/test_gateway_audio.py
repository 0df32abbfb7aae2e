"""Audio in and out through the gateway."""

from pathlib import Path

import numpy as np
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb

from services.errors import ConflictError, InvalidInputError, NotFoundError
from services.runtime.status import remote_errors
from tests.conftest import OpenStack, Stack, upload_messages


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
