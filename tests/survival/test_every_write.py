"""A run that is killed at any of its writes goes on to the same bytes."""

import random
import re
import shutil
from pathlib import Path

import pytest

from tests.survival.conftest import Tally, Undisturbed
from tests.survival.journal import AFTER, BEFORE, WITHIN, Death, Point
from tests.survival.stage import Play, Theatre

# Every kind of write that a run is known to make, and how many of it: none may go unnoticed.
EXPECTED = {
    r"put runs/[^/]+/request\.json": 1,
    r"put_new audio/generated-[^/]+/\d+\.wav": 2,
    r"put markers/synth/\w+\.json": 2,
    r"put descriptors/\w+\.json": 4,
    r"shard create": 1,
    r"shard update": 2,
    r"shard flush": 2,
    r"catalogue commit": 4,
    r"put collections/\w+/spec\.json": 1,
    r"put collections/\w+/sources/\w+\.json": 2,
    r"put collections/\w+/published\.json": 1,
    r"put runs/[^/]+/predictions/\w+\.json": 2,
    r"put renders/[^/]+/piece\.wav": 1,
    r"put renders/[^/]+/edit_list\.json": 1,
    r"put renders/[^/]+/spectrogram\.png": 1,
    r"put runs/[^/]+/stages/\d\.json": 6,
    r"put runs/[^/]+/run\.json": 1,
}
PUTS = ("put", "put_new")
SEED = 20


def phases_of(point: Point) -> tuple[str, ...]:
    """When one can die at a write; a transaction or the engine's own writes are not taken apart."""
    return (BEFORE, WITHIN, AFTER) if point.kind in PUTS else (BEFORE, AFTER)


def survived(
    play: Play, deaths: list[Death], undisturbed: Undisturbed, tally: Tally, attacked: str
) -> str:
    """What is not as if it had never been killed at `deaths`, each in a process of its own."""
    kills = 0
    for death in deaths:
        ended = play.once(death)
        if kills and ended.code == 0:
            break
        # Those that resume make fewer writes, and know best which.
        play.assert_died(ended, death, None if kills else undisturbed.writes[death.number])
        kills += 1
    difference = play.to_the_end().difference(undisturbed.remains)
    for _ in range(kills):
        tally.add(attacked, "other bytes" if difference else "same bytes once resumed")
    if difference:
        return f"killed {', '.join(map(str, deaths))}:\n{difference}"
    shutil.rmtree(play.folder)
    return ""


def attack(
    theatre: Theatre,
    undisturbed: Undisturbed,
    deaths: list[Death],
    folder: Path,
    tally: Tally,
    *,
    attacked: str = "killed at",
) -> str:
    """Plays a run for each death, killed there and then left alone; what went wrong, or ""."""

    def one(death: Death) -> str:
        play = theatre.play(folder / f"{death.phase}-{death.number}")
        what = f"{attacked}: {named(undisturbed.writes[death.number])}"
        return survived(play, [death], undisturbed, tally, what)

    return "\n".join(filter(None, theatre.zygotes.each(one, deaths)))


def named(point: Point) -> str:
    """The kind of a write, its digests left out."""
    key = re.sub(r"run-\w+", "<run>", point.key)
    key = re.sub(r"generated-[\w-]+", "generated", re.sub(r"[0-9a-f]{16,}", "<digest>", key))
    return f"{point.kind} {key}".strip()


def test_every_kind_of_write_is_known_to_be_one(undisturbed: Undisturbed) -> None:
    written = [f"{point.kind} {point.key}".strip() for point in undisturbed.writes]
    for pattern, least in EXPECTED.items():
        found = [each for each in written if re.fullmatch(pattern, each)]
        assert len(found) >= least, f"{pattern}: {found} of {written}"


def test_two_undisturbed_runs_leave_the_same(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    play = theatre.play(tmp_path / "play")
    assert play.to_the_end().difference(undisturbed.remains) == ""
    assert play.writes() == undisturbed.writes
    points = undisturbed.remains.outcome["points"]
    assert [len(set(found)) for found in points.values()] == [2 * 13]


def test_a_run_killed_at_each_write_ends_with_the_same_bytes(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    deaths = [
        Death(number, phases[number % len(phases)])
        for number, point in enumerate(undisturbed.writes)
        for phases in [phases_of(point)]
    ]
    assert attack(theatre, undisturbed, deaths, tmp_path, tally) == ""


@pytest.mark.slow
def test_a_run_killed_before_within_or_after_each_write_ends_with_the_same_bytes(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    deaths = [
        Death(number, phase)
        for number, point in enumerate(undisturbed.writes)
        for phase in phases_of(point)
    ]
    assert attack(theatre, undisturbed, deaths, tmp_path, tally) == ""


@pytest.mark.parametrize("rows", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_killed_at_write_after_write_ends_with_the_same_bytes(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally, rows: int
) -> None:
    def one(row: int) -> str:
        draw = random.Random(SEED + row)  # noqa: S311 - to be drawn again by its seed
        # Fewer writes than one sound's way into the index, and a run would not get any further.
        deaths = [Death(draw.randint(6, 12), draw.choice((BEFORE, AFTER))) for _ in range(20)]
        play = theatre.play(tmp_path / f"row-{row}")
        return survived(play, deaths, undisturbed, tally, "killed at write after write")

    assert "\n".join(filter(None, theatre.zygotes.each(one, range(rows)))) == ""
