"""The feed: batches in order, ahead of time, and errors where they belong."""

import threading
import weakref

import pytest

from services.learning.feeding import Feed


def test_batches_come_in_order_from_the_first_step_on() -> None:
    with Feed(lambda step: step * 10, first_step=7) as feed:
        assert [feed.next() for _ in range(20)] == [step * 10 for step in range(7, 27)]


def test_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    with Feed(made.append, first_step=0):
        pass
    assert made == []


def test_the_next_batches_are_made_while_nobody_asks() -> None:
    made = threading.Semaphore(0)
    with Feed(lambda _: made.release(), first_step=0, ahead=3) as feed:
        feed.next()
        for _ in range(4):
            assert made.acquire(timeout=30)
        # And no more than those.
        assert not made.acquire(timeout=0.05)


def test_batches_are_made_in_another_thread_one_at_a_time() -> None:
    with Feed(lambda _: threading.get_ident(), first_step=0) as feed:
        threads = {feed.next() for _ in range(10)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_an_error_comes_out_at_its_own_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2 is broken")
        return step

    with Feed(make, first_step=0) as feed:
        assert [feed.next(), feed.next()] == [0, 1]
        for _ in range(2):
            with pytest.raises(ValueError, match="step 2 is broken"):
                feed.next()


def test_a_step_that_failed_is_tried_again() -> None:
    failures = iter([True, False])

    def make(step: int) -> int:
        if step == 0 and next(failures, False):
            raise OSError("for once")
        return step

    with Feed(make, first_step=0) as feed:
        with pytest.raises(OSError, match="for once"):
            feed.next()
        assert [feed.next(), feed.next()] == [0, 1]


def test_waiting_is_counted() -> None:
    gate = threading.Event()

    def make(step: int) -> int:
        gate.wait(30)
        return step

    with Feed(make, first_step=0) as feed:
        assert feed.waited_seconds == 0
        timer = threading.Timer(0.3, gate.set)
        timer.start()
        feed.next()
        timer.join()
        assert feed.waited_seconds >= 0.04


def test_a_closed_feed_leaves_no_thread_and_gives_nothing_more() -> None:
    before = set(threading.enumerate())
    feed = Feed(lambda step: step, first_step=0)
    feed.next()
    assert set(threading.enumerate()) - before
    feed.close()
    feed.close()
    assert not set(threading.enumerate()) - before
    with pytest.raises(RuntimeError):
        feed.next()


def test_a_forgotten_feed_does_not_keep_its_maker() -> None:
    class Maker:
        def make(self, step: int) -> int:
            return step

    before = set(threading.enumerate())
    maker = Maker()
    kept = weakref.ref(maker)
    feed = Feed(maker.make, first_step=0)
    for _ in range(5):
        feed.next()
    (thread,) = set(threading.enumerate()) - before
    del maker, feed
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert kept() is None
