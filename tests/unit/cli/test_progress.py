import pytest

from services.cli import progress
from services.cli.progress import Progress


class Clock:
    """Time as the test has it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_at_the_beginning_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as shown:
        for step in range(1001):
            clock.now += 0.001
            shown.update("training", step, 1000)
    assert lines(capsys) == ["training: 0 of 1000", "training: 1000 of 1000"]


def test_between_them_a_line_comes_every_ten_seconds_with_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as shown:
        for step in range(0, 101, 5):
            shown.update("training", step, 100, "mse 1")
            clock.now += 2
    assert lines(capsys) == [
        "training: 0 of 100  mse 1",
        "training: 25 of 100, 30 s left  mse 1",
        "training: 50 of 100, 20 s left  mse 1",
        "training: 75 of 100, 10 s left  mse 1",
        "training: 100 of 100  mse 1",
    ]


def test_long_waits_are_told_in_minutes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as shown:
        shown.update("training", 0, 100)
        clock.now += 60
        shown.update("training", 10, 100)
    assert lines(capsys)[-1] == "training: 10 of 100, 9 min left"


def test_pieces_of_work_do_not_silence_each_other(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as shown:
        shown.update("melgan", 0, 2)
        shown.update("unagan", 0, 2)
        shown.update("melgan", 2, 2)
        shown.update("melgan", 2, 2)
    assert lines(capsys) == ["melgan: 0 of 2", "unagan: 0 of 2", "melgan: 2 of 2"]


def test_what_is_said_stays_whole_and_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = "left out: [bold]takes/" + "very " * 40 + "long.wav"
    with Progress() as shown:
        shown.say(said)
    assert lines(capsys) == [said]
