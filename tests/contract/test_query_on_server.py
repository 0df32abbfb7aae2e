"""The query service over a Qdrant server, as settings open it, and rebuilt from the store alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from demiurge.query.v1 import query_service_pb2 as pb

from services.errors import UnavailableError
from services.runtime.messages import match_table_from_message, track_to_message
from tests.contract.query_client import reference, spec, track
from tests.servers.qdrant import Qdrant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Stack

LOW, HIGH = (track(offset + np.arange(12.0).reshape(4, 3)) for offset in (0, 100))


@pytest.fixture
def server() -> Iterator[Qdrant]:
    with Qdrant(api_key="secret") as started:
        yield started


@pytest.fixture
def stack(
    open_stack: "Callable[[Path], AbstractContextManager[Stack]]",
    server: Qdrant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator["Stack"]:
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("DEMIURGE_QUERY_URL", server.url)
    monkeypatch.setenv("DEMIURGE_QUERY_GRPC_PORT", str(server.grpc_port))
    monkeypatch.setenv("DEMIURGE_QUERY_API_KEY_FILE", str(tmp_path / "key"))
    with open_stack(tmp_path) as opened:
        yield opened


def fill(stack: "Stack") -> None:
    query = stack.client.query
    stack.call(
        query.CreateCollection, pb.CreateCollectionRequest(collection_id="birds", spec=spec())
    )
    for key, described in (("low.wav", LOW), ("high.wav", HIGH)):
        message = track_to_message(described)
        added = stack.call(
            query.IndexDescriptors,
            pb.IndexDescriptorsRequest(collection_id="birds", source=reference(key), track=message),
        )
        assert added.point_count == 4
    stack.call(
        query.PublishCollection,
        pb.PublishCollectionRequest(collection_id="birds", alias="current", skip_graph=True),
    )


def matched(stack: "Stack") -> list[str]:
    answer = stack.call(
        stack.client.query.MatchDescriptors,
        pb.MatchDescriptorsRequest(
            collection_id="current",
            track=track_to_message(track(np.array([[100, 101, 102], [9, 10, 12.0]]))),
        ),
    )
    table = match_table_from_message(answer.matches)
    return [table.sources[number].key for number in table.source_indices[:, 0]]


def checked(stack: "Stack", *, mend: bool = False) -> pb.CheckCollectionResponse:
    request = pb.CheckCollectionRequest(collection_id="birds", mend=mend)
    found: pb.CheckCollectionResponse = stack.call(stack.client.query.CheckCollection, request)
    return found


def test_what_the_server_lost_is_rebuilt_from_the_store_alone(
    stack: "Stack", server: Qdrant
) -> None:
    fill(stack)
    assert matched(stack) == ["high.wav", "low.wav"]
    assert not checked(stack).findings

    server.local.delete_collection("demiurge.birds")
    assert checked(stack).missing_points == 8
    assert checked(stack, mend=True).mended

    assert not checked(stack).findings
    assert matched(stack) == ["high.wav", "low.wav"]


def test_a_server_that_is_away_is_named_to_the_client(stack: "Stack", server: Qdrant) -> None:
    fill(stack)
    server.stop()

    with pytest.raises(UnavailableError, match=r"Qdrant at .*DEMIURGE_QUERY_URL"):
        matched(stack)
