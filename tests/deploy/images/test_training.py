"""The synth and predictor images train, too, with nothing writable but their volumes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import sound
from tests.deploy.images.container import output

pytestmark = [pytest.mark.containers, pytest.mark.slow]
SMALL = (
    *("--steps", "2", "--ngf", "2", "--ratios", "8,8", "--n-fft", "256", "--hop-length", "64"),
    *("--win-length", "256", "--n-mels", "16", "--ndf", "2", "--max-channels", "8"),
    *("--batch-size", "2", "--crop-samples", "2048"),
)


@pytest.fixture
def recordings(tmp_path: Path) -> tuple[str, ...]:
    """Options of `docker run` that mount a folder of recordings."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.wav").write_bytes(sound(1.0, seed))
    return ("--volume", f"{folder}:/recordings:ro", "--tmpfs", "/dev/shm:size=256m")  # noqa: S108


def test_a_vocoder_is_trained_where_there_is_no_gpu(
    images: Mapping[str, str], recordings: tuple[str, ...]
) -> None:
    command = f"demiurge train melgan --recorded /recordings {' '.join(SMALL)} 2>&1"
    said = output(
        images["synth"],
        *("-ec", f"{command}; find /var/lib/demiurge/store/models -name model.safetensors"),
        options=recordings,
        entrypoint="sh",
    )
    assert "model.safetensors" in said.splitlines()[-1]


def test_a_predictor_is_trained_from_sound(
    images: Mapping[str, str], recordings: tuple[str, ...]
) -> None:
    command = "demiurge train predictor --recorded /recordings --steps 2 2>&1"
    said = output(
        images["predictor"],
        *("-ec", f"{command}; find /var/lib/demiurge/store/models -name model.safetensors"),
        options=recordings,
        entrypoint="sh",
    )
    assert "model.safetensors" in said.splitlines()[-1]
