"""A run over S3 that is killed at any of its writes leaves what one over a folder does."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.servers.seaweed import Seaweed
from tests.survival.conftest import Tally, Undisturbed
from tests.survival.journal import AFTER, BEFORE, WITHIN, Death
from tests.survival.stage import Theatre
from tests.survival.test_every_write import attack, phases_of

# One of each kind of object that later stages cannot do without.
SOME = {
    "audio/generated": WITHIN,
    "descriptors/": WITHIN,
    "/sources/": AFTER,
    "/published.json": BEFORE,
    "/stages/3.json": WITHIN,
    "/piece.wav": AFTER,
}


@pytest.fixture(scope="module")
def theatre_over_s3(theatre: Theatre, seaweed: Seaweed) -> Theatre:
    return replace(theatre, seaweed=seaweed)


def test_an_undisturbed_run_writes_and_leaves_the_same_as_over_a_folder(
    theatre_over_s3: Theatre, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    play = theatre_over_s3.play(tmp_path / "play")
    assert play.to_the_end().difference(undisturbed.remains) == ""
    assert play.writes() == undisturbed.writes


def test_a_run_over_s3_killed_at_some_writes_ends_with_the_same_bytes(
    theatre_over_s3: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    keys = [point.key for point in undisturbed.writes]
    deaths = [
        Death(next(number for number, key in enumerate(keys) if part in key), phase)
        for part, phase in SOME.items()
    ]
    wrong = attack(
        theatre_over_s3, undisturbed, deaths, tmp_path, tally, attacked="over S3, killed at"
    )
    assert wrong == ""


@pytest.mark.slow
def test_a_run_over_s3_killed_before_within_or_after_each_write_ends_with_the_same_bytes(
    theatre_over_s3: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    deaths = [
        Death(number, phase)
        for number, point in enumerate(undisturbed.writes)
        for phase in phases_of(point)
    ]
    wrong = attack(
        theatre_over_s3, undisturbed, deaths, tmp_path, tally, attacked="over S3, killed at"
    )
    assert wrong == ""
