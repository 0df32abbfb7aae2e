import os
import tempfile
import time
from pathlib import Path

import pytest

from services.cli.training.families import first_on_its_machine
from services.learning.world import ALONE, World
from tests.unit.learning.processes import together


def prepared(world: World) -> bool:
    """Whether this process finds what it wants to prepare."""
    entry = Path(tempfile.gettempdir()) / f"prepared-{os.environ['MASTER_PORT']}"
    with first_on_its_machine(world):
        found = entry.exists()
        if not found:
            # Long enough for the others to come, unless they wait.
            time.sleep(0.3)
            entry.touch()
    world.wait()
    entry.unlink(missing_ok=True)
    return found


def failing(world: World) -> str:
    try:
        with first_on_its_machine(world):
            int(f"of {world.rank}")
    except ValueError as error:
        return str(error)
    return ""


def test_the_others_find_what_the_first_one_prepared() -> None:
    assert together(2, prepared) == [False, True]


def test_an_error_of_the_first_one_leaves_nobody_waiting() -> None:
    assert together(2, failing) == [
        f"invalid literal for int() with base 10: 'of {rank}'" for rank in range(2)
    ]


def test_alone_nobody_waits() -> None:
    with pytest.raises(ValueError, match="own"), first_on_its_machine(ALONE):
        raise ValueError("own")
