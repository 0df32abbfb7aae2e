from pathlib import Path

import grpc
import pytest

from services.cli.bulk import Order, generate_all
from services.cli.progress import Progress
from services.errors import InvalidInputError
from services.runtime.status import error_from_rpc
from tests.conftest import MELGAN, UNAGAN, OpenStack

LONGEST = {"DEMIURGE_SYNTH_MAX_SECONDS": "1"}


def order(seconds: float) -> Order:
    return Order(unagan=UNAGAN, melgan=MELGAN, seconds=seconds, database="d", seeds=range(7))


def test_a_batch_longer_than_the_service_makes_at_once_is_made_in_smaller_ones(
    open_stack: OpenStack, tmp_path: Path
) -> None:
    with open_stack(tmp_path, environment=LONGEST) as stack:
        generate_all(stack.client, order(0.3), tmp_path / "out", Progress(), batch=7, calls=1)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"seed-{seed}-0.3s.wav" for seed in range(7)}


def test_sounds_each_longer_than_the_service_makes_are_refused_before_any_work(
    open_stack: OpenStack, tmp_path: Path
) -> None:
    with (
        open_stack(tmp_path, environment=LONGEST) as stack,
        pytest.raises(grpc.RpcError) as raised,
    ):
        generate_all(stack.client, order(1.5), tmp_path / "out", Progress(), batch=3, calls=1)
    refusal = error_from_rpc(raised.value)
    assert isinstance(refusal, InvalidInputError)
    assert "1.5 s, and this service makes at most 1 s" in refusal.message
    assert not list(stack.store.keys("audio/"))
    assert not (tmp_path / "out").exists()
