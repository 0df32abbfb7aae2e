"""A bit that flips in a stored object is mended or named, and never heard.

Every object is flipped in turn, and the run is created again from the stage that wrote it, and from
the one after, so that whoever reads the object does so again.
"""

import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime.object_store.folder import HASH_ATTRIBUTE
from tests.survival.conftest import Tally, Undisturbed
from tests.survival.journal import BEFORE, Death, Point
from tests.survival.stage import Remains, Theatre
from tests.survival.test_every_write import named

SEED = 42
STAGES = 6
INDEX_STAGE = 2
ALL_DONE = STAGES
FROM_NOTHING = -1

# The stage that writes an object.
WRITTEN_BY = {
    r"audio/generated-.*|markers/.*": 0,
    r"descriptors/.*": 1,
    r"collections/.*|aliases/.*": INDEX_STAGE,
    r"runs/[^/]+/predictions/.*": 3,
    r"renders/.*": 5,
    r"runs/[^/]+/run\.json": ALL_DONE,
}
INPUTS = re.compile(r"models/.*|audio/prediction/.*")
# What nobody can make again, or nobody asked to be: everything else mends itself.
REFUSED = re.compile(rf"{INPUTS.pattern}|collections/[^/]+/(?:spec|published)\.json|renders/.*")
WRONG = ("HEARD", "UNNAMED", "NOT MENDED")
HEARD = ("id", "audio", "edit_list", "spectrogram")


@dataclass(frozen=True)
class Flip:
    """One bit of an object, and the stage from which the run is then done again."""

    key: str
    bit: int
    restart: int


@pytest.fixture(autouse=True)
def hashes_are_recorded(theatre: Theatre) -> None:
    """Without them, a person may have changed a sound as well as a bit may have flipped."""
    [*_, file] = (theatre.inputs / "store" / "audio").rglob("*.wav")
    try:
        os.getxattr(file, HASH_ATTRIBUTE)
    except (AttributeError, OSError):
        pytest.skip("this filesystem has no extended attributes")


def restarts(key: str) -> list[int]:
    """The stages from which a run reads the object again."""
    if INPUTS.fullmatch(key):
        return [FROM_NOTHING]
    marker = re.fullmatch(r"runs/[^/]+/stages/(\d)\.json", key)
    if marker:
        return [int(marker[1]) + 1]
    if key.endswith("/request.json"):
        return [0, ALL_DONE]
    [stage] = [stage for pattern, stage in WRITTEN_BY.items() if re.fullmatch(pattern, key)]
    return [stage] if stage == ALL_DONE else [stage, stage + 1]


def flips(undisturbed: Undisturbed) -> list[Flip]:
    draw = random.Random(SEED)  # noqa: S311 - to be drawn again by its seed
    found = []
    for key in sorted(undisturbed.remains.objects):
        # Some objects are empty.
        if bits := 8 * (undisturbed.folder / "store" / key).stat().st_size:
            found += [Flip(key, draw.randrange(bits), restart) for restart in restarts(key)]
    return found


def damage(folder: Path, chosen: Flip) -> None:
    """Flips the bit in place, and takes away what the stages from there on left."""
    for marker in (folder / "store").glob("runs/*/stages/*.json"):
        if int(marker.stem) >= chosen.restart:
            marker.unlink()
    # Whatever ended is to be looked at again, unless it is what is damaged.
    for end in (folder / "store").glob("runs/*/run.json"):
        if not chosen.key.endswith("/run.json"):
            end.unlink()
    if chosen.restart <= INDEX_STAGE:
        shutil.rmtree(folder / "query", ignore_errors=True)
    flip_bit(folder / "store" / chosen.key, chosen.bit)


def flip_bit(path: Path, bit: int) -> None:
    """In place, as a disk does: what is recorded of the file stays."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        [byte] = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def verdict(found: Remains, chosen: Flip, undisturbed: Undisturbed) -> str:
    """How it went; what must not be begins with one of WRONG."""
    outcome, wanted = found.outcome, undisturbed.remains.outcome
    if outcome["state"] == "STATE_SUCCEEDED":
        if any(outcome[name] != wanted[name] for name in HEARD):
            return "HEARD: another piece"
        mended = found.objects[chosen.key] == undisturbed.remains.objects[chosen.key]
        return "mended: same piece" if mended else "not needed: same piece"
    if chosen.key not in outcome["error"]:
        return f"UNNAMED: {outcome['error']}"
    if not REFUSED.fullmatch(chosen.key):
        return f"NOT MENDED: {outcome['error']}"
    return "refused by name"


def attack(
    theatre: Theatre, undisturbed: Undisturbed, chosen: list[Flip], folder: Path, tally: Tally
) -> str:
    """Begins a run again over each flip; what went wrong, or ""."""

    def one(number: int) -> str:
        each = chosen[number]
        inputs = theatre.inputs if each.restart == FROM_NOTHING else undisturbed.folder
        play = theatre.play(folder / str(number), inputs)
        damage(play.folder, each)
        ended = play.once()
        assert ended.code == 0, ended.log
        found = verdict(play.remains(), each, undisturbed)
        tally.add(f"bit flipped in: {named(Point('', each.key))}", found)
        if found.startswith(WRONG):
            return f"{each}: {found}"
        shutil.rmtree(play.folder)
        return ""

    return "\n".join(filter(None, theatre.zygotes.each(one, range(len(chosen)))))


def test_each_kind_of_object_is_attacked(undisturbed: Undisturbed) -> None:
    keys = undisturbed.remains.objects
    assert {key for key in keys if restarts(key)} == set(keys)
    for pattern in (*WRITTEN_BY, INPUTS.pattern):
        kinds = pattern.split("|")
        assert any(re.fullmatch(kind, key) for kind in kinds for key in keys), pattern


def test_a_bit_flipped_in_one_object_of_each_kind_is_never_heard(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    # The first of each kind: runs differ in their digests and numbers alone.
    kinds = {re.sub(r"[0-9a-f]{12,}|\d", "", each.key): each for each in flips(undisturbed)}
    assert attack(theatre, undisturbed, list(kinds.values()), tmp_path, tally) == ""


@pytest.mark.slow
def test_a_bit_flipped_in_any_object_is_never_heard(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    assert attack(theatre, undisturbed, flips(undisturbed), tmp_path, tally) == ""


def test_a_bit_flipped_in_the_beat_of_a_killed_run_does_not_keep_it_from_going_on(
    theatre: Theatre, undisturbed: Undisturbed, tmp_path: Path, tally: Tally
) -> None:
    keys = [point.key for point in undisturbed.writes]
    point = next(number for number, key in enumerate(keys) if "/predictions/" in key)
    draw = random.Random(SEED)  # noqa: S311 - to be drawn again by its seed
    for number in range(3):
        play = theatre.play(tmp_path / str(number))
        assert play.once(Death(point, BEFORE)).killed
        [beat] = (play.folder / "store").glob("runs/*/live.json")
        flip_bit(beat, draw.randrange(8 * beat.stat().st_size))
        assert play.to_the_end().difference(undisturbed.remains) == ""
        tally.add("bit flipped in: runs/<run>/live.json of a killed run", "goes on: same piece")
