"""A deletion that is killed at any of its writes can be done again, or the run be made again."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.survival.conftest import Tally, Undisturbed
from tests.survival.journal import AFTER, BEFORE, Death, Point
from tests.survival.stage import Theatre
from tests.survival.test_every_write import named


@dataclass(frozen=True)
class Deletion:
    """One that nobody disturbed: its writes in order, and what it left."""

    writes: list[Point]
    objects: dict[str, str]


@pytest.fixture(scope="module")
def deletion(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> Deletion:
    play = theatre.play(tmp_path_factory.mktemp("deletion") / "play", undisturbed.folder)
    ended = play.once(deletes=undisturbed.remains.outcome["id"])
    assert ended.code == 0, ended.log
    return Deletion(play.writes(), play.remains().objects)


def test_a_deletion_takes_the_records_and_the_piece_alone(
    deletion: Deletion, undisturbed: Undisturbed
) -> None:
    run_id = undisturbed.remains.outcome["id"]
    before = undisturbed.remains.objects
    own = (f"runs/{run_id}/", f"renders/{run_id}/")
    assert deletion.objects == {key: before[key] for key in before if not key.startswith(own)}
    assert {point.key for point in deletion.writes} >= {
        key for key in before if key.startswith(own)
    }


@pytest.mark.parametrize("again", ["deleted", "created"])
def test_a_run_whose_deletion_was_killed_at_each_write_can_still_be(
    *,
    again: str,
    theatre: Theatre,
    undisturbed: Undisturbed,
    deletion: Deletion,
    tmp_path: Path,
    tally: Tally,
) -> None:
    run_id = undisturbed.remains.outcome["id"]
    first = 0 if again == "deleted" else 1

    def one(number: int) -> str:
        point = deletion.writes[number]
        death = Death(number, (BEFORE, AFTER)[(number + first) % 2])
        play = theatre.play(tmp_path / str(number), undisturbed.folder)
        play.assert_died(play.once(death, deletes=run_id), death, point)
        if again == "created":
            difference = play.to_the_end().difference(undisturbed.remains)
        else:
            # Where nothing was left to delete, that is said.
            ended = play.once(deletes=run_id)
            assert ended.code == 0, ended.log
            found = play.remains()
            assert found.outcome["state"] == "DELETED" or found.outcome["reason"] == "NOT_FOUND"
            difference = "" if found.objects == deletion.objects else f"{sorted(found.objects)}"
        tally.add(
            f"deletion killed at: {named(point)}", "wrong" if difference else f"{again} again"
        )
        if difference:
            return f"{death}, {point}: {difference}"
        shutil.rmtree(play.folder)
        return ""

    wrong = theatre.zygotes.each(one, range(len(deletion.writes)))
    assert "\n".join(filter(None, wrong)) == ""
