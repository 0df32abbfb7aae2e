"""The supply: batches from any step on, pinned where the device is a GPU, and its own GPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import pytest
import torch

from services.learning.supply import Supply


@dataclass(frozen=True)
class Numbered:
    step: int
    pinned_on: str = ""

    def pinned(self) -> Self:
        return replace(self, pinned_on=getattr(CURRENT, "gpu", "the first GPU"))


CURRENT = threading.local()


@contextmanager
def on_gpu(device: torch.device) -> Iterator[None]:
    """What `torch.cuda.device` does, where there is no GPU: it changes this thread's alone."""
    CURRENT.gpu = str(device)
    yield
    del CURRENT.gpu


def test_batches_come_from_the_first_step_asked_for_and_after_a_pause_from_another() -> None:
    supply = Supply(Numbered, torch.device("cpu"))
    assert [supply.next(step).step for step in (5, 6, 7)] == [5, 6, 7]
    supply.close()
    supply.close()
    assert [supply.next(step) for step in (2, 3)] == [Numbered(2), Numbered(3)]
    supply.close()


def test_a_closed_supply_leaves_no_thread_and_its_waiting_stays_counted() -> None:
    before = set(threading.enumerate())
    supply = Supply(Numbered, torch.device("cpu"))
    assert supply.waited_seconds == 0
    supply.next(0)
    waited = supply.waited_seconds
    assert waited > 0
    supply.close()
    assert set(threading.enumerate()) == before
    assert supply.waited_seconds == waited


def test_batches_for_a_gpu_are_pinned_while_the_thread_is_on_that_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device", on_gpu)
    supply = Supply(Numbered, torch.device("cuda:1"))
    assert supply.next(4) == Numbered(4, pinned_on="cuda:1")
    supply.close()
