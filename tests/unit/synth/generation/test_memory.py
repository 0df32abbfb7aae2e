import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


def grown(seconds: int, variant: str, networks: str) -> tuple[float, float]:
    """By how many MiB a process grew that made a sound, and to how many."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.unit.synth.generation.sounding"),
            *(str(seconds), variant, networks),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    by, to = done.stdout.split()
    return float(by), float(to)


def test_a_sound_is_voiced_in_the_memory_of_its_chunks() -> None:
    # In one pass it takes 60 MiB a second.
    by, _ = grown(12, "original", "vocoder")

    assert by < 120


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["original", "gru"])
def test_ten_minutes_are_sung_and_voiced_below_two_gibibytes(variant: str) -> None:
    _, to = grown(600, variant, "both")

    assert to < 2048
