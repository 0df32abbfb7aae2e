"""Runs that find damage: what can be made again is, what was given is named."""

import os
from collections.abc import Callable, Iterator

import grpc
import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.gateway.v1.run_record_pb2 import Descriptions, Material, PredictedTracks
from demiurge.query.v1.query_service_pb2 import DeleteCollectionRequest

from services.gateway.run_store import RunStore
from services.gateway.standing import references
from tests.conftest import OpenStack, Stack, sound, spec
from tests.contract.gateways import Between, gateway, served_between


@pytest.fixture(scope="module")
def stack(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a sound to continue."""
    with open_stack(tmp_path_factory.mktemp("damage")) as opened:
        opened.upload("prediction", "1.wav", sound(1.0, 1))
        yield opened


def flip(stack: Stack, key: str) -> None:
    """Another bit in the object's file, its recorded hash as it was."""
    path = stack.folder / "store" / key
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)


def ends_below(stack: Stack, run_id: str, stage: int) -> None:
    """As if the run had been killed in `stage`."""
    for key in ("run.json", *(f"stages/{number}.json" for number in range(stage, 6))):
        stack.store.delete(f"runs/{run_id}/{key}")


@pytest.mark.parametrize(
    "damaged", ["run.json", "request.json", *map("stages/{}.json".format, range(6))]
)
def test_a_damaged_record_is_made_again(stack: Stack, damaged: str) -> None:
    wanted = spec(files=2, seed=1)
    piece = stack.piece(wanted)
    run = stack.create(wanted)
    if damaged != "run.json":
        stack.store.delete(f"runs/{run.id}/run.json")
    flip(stack, f"runs/{run.id}/{damaged}")

    assert stack.piece(wanted) == piece
    assert stack.get(run.id).state == State.STATE_SUCCEEDED
    assert RunStore(stack.store).request(run.id).id == run.id


@pytest.mark.parametrize(
    ("number", "output", "stage"),
    [(0, Material, 1), (1, Descriptions, 2), (1, Descriptions, 1), (3, PredictedTracks, 4)],
)
def test_what_a_run_made_and_was_damaged_is_made_again(
    stack: Stack, number: int, output: type, stage: int
) -> None:
    wanted = spec(files=2, seed=2)
    piece = stack.piece(wanted)
    run = stack.create(wanted)
    made = references(RunStore(stack.store).marker(run.id, number, output()))
    own = ("audio/generated", "descriptors/", "runs/")[min(number, 2)]
    key = next(each.key for each in made if each.key.startswith(own))
    whole = stack.store.read(key)
    ends_below(stack, run.id, stage)
    collection = DeleteCollectionRequest(collection_id=run.result.collection_id)
    stack.call(stack.client.query.DeleteCollection, collection)
    for described in list(stack.store.keys("descriptors/")):
        if number == 0:
            stack.store.delete(described)
    flip(stack, key)

    assert stack.piece(wanted) == piece
    assert stack.store.read(key) == whole


class Overtaken(Between):
    """Someone else mends what a service complains of before the gateway hears of it."""

    def __init__(self, address: str, mend: Callable[[], None]) -> None:
        super().__init__(address)
        self._mend = mend
        self.complained = False

    def _answer(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return super()._answer(path, request, context)
        except Exception:  # gRPC aborts calls by raising just that
            self.complained = True
            self._mend()
            raise


def test_what_another_run_has_mended_meanwhile_is_not_removed(stack: Stack) -> None:
    wanted = spec(files=2, seed=4)
    piece = stack.piece(wanted)
    run = stack.create(wanted)
    made = references(RunStore(stack.store).marker(run.id, 1, Descriptions()))
    key = next(each.key for each in made if each.key.startswith("descriptors/"))
    file = stack.folder / "store" / key
    whole = file.read_bytes()
    ends_below(stack, run.id, 1)
    flip(stack, key)

    def mend() -> None:
        with file.open("r+b") as damaged:
            damaged.write(whole)

    overtaken = Overtaken(stack.address, mend)
    with (
        file.open("rb") as opened,
        served_between(overtaken) as port,
        gateway(stack, f"127.0.0.1:{port}") as other,
    ):
        assert other.piece(wanted) == piece
        assert os.fstat(opened.fileno()).st_nlink == 1
    overtaken.close()

    assert overtaken.complained


@pytest.mark.parametrize("damaged", ["audio", "edit_list", "spectrogram"])
def test_a_damaged_piece_is_made_again_by_whoever_asks_for_it(stack: Stack, damaged: str) -> None:
    wanted = spec(files=2, seed=3)
    piece = stack.piece(wanted)
    reference = getattr(stack.create(wanted).result, damaged)
    flip(stack, reference.key)

    assert stack.piece(wanted) == piece
    assert stack.store.verify(reference.key).sha256 == reference.sha256


def test_damage_to_what_was_given_is_named_with_what_to_do(stack: Stack) -> None:
    stack.upload("given", "2.wav", sound(0.7, 2))
    wanted = spec(database="given", seed=3)
    flip(stack, "audio/given/2.wav")

    failed = stack.made(wanted)

    assert failed.failure.reason == "CORRUPT_OBJECT"
    assert "audio/given/2.wav" in failed.failure.message
    assert "demiurge doctor --deep" in failed.failure.message
    assert failed.failure.message.count("create the run again") == 1
    (stack.folder / "store" / "audio/given/2.wav").unlink()
    stack.upload("given", "2.wav", sound(0.7, 2))
    assert stack.made(wanted).state == State.STATE_SUCCEEDED
