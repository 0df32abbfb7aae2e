"""A run that is killed at any moment, once or again and again, goes on to the same bytes."""

import random
import shutil
from pathlib import Path

import pytest

from tests.survival.conftest import Tally, Undisturbed
from tests.survival.stage import Theatre

SEED = 1729


def survived(
    theatre: Theatre, undisturbed: Undisturbed, seconds: list[float], folder: Path, tally: Tally
) -> str:
    """What is not as if it had never been killed after `seconds`, each in a process of its own."""
    play = theatre.play(folder)
    kills = 0
    for until in seconds:
        ended = play.once(seconds=until)
        if not ended.killed:
            assert ended.code == 0, ended.log
            break
        kills += 1
    difference = play.to_the_end().difference(undisturbed.remains)
    attacked = "killed at a random time" + ", each resume too" * (len(seconds) > 1)
    for _ in range(kills):
        tally.add(attacked, "other bytes" if difference else "same bytes once resumed")
    if difference:
        return f"killed after {seconds}:\n{difference}"
    shutil.rmtree(folder)
    # Faster than the one that was timed: it is to be killed all the same.
    earlier = [until / 2 for until in seconds]
    return "" if kills else survived(theatre, undisturbed, earlier, folder, tally)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_a_random_time_ends_with_the_same_bytes(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally, kills: int
) -> None:
    draw = random.Random(SEED)  # noqa: S311 - to be drawn again by its seed
    times = [draw.uniform(0.0, undisturbed.seconds) for _ in range(kills)]
    print(f"seed {SEED}, within {undisturbed.seconds:.3f} s: {times}")  # noqa: T201

    def one(number: int) -> str:
        folder = tmp_path / str(number)
        return survived(theatre, undisturbed, [times[number]], folder, tally)

    assert "\n".join(filter(None, theatre.zygotes.each(one, range(kills)))) == ""


@pytest.mark.parametrize("runs", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally, runs: int
) -> None:
    draw = random.Random(SEED + 1)  # noqa: S311 - to be drawn again by its seed
    rows = [[draw.uniform(0.0, undisturbed.seconds) for _ in range(10)] for _ in range(runs)]
    print(f"seed {SEED + 1}, within {undisturbed.seconds:.3f} s: {rows}")  # noqa: T201

    def one(number: int) -> str:
        return survived(theatre, undisturbed, rows[number], tmp_path / str(number), tally)

    assert "\n".join(filter(None, theatre.zygotes.each(one, range(runs)))) == ""
