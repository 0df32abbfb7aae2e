"""Sounds to attack with, and the words of a refusal."""

import io

import numpy as np
import pytest
import soundfile

from services.audio.decoding import Limits, decoded
from services.errors import UnreadableAudioError

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (3_000, 2))


def encoded(container: str, subtype: str | None = None, samples: np.ndarray = NOISE) -> bytes:
    file = io.BytesIO()
    rate = 48_000 if subtype == "OPUS" else 44_100
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def refusal(content: bytes, limits: Limits | None = None) -> str:
    """Why the decoder refuses it."""
    file = io.BytesIO(content)

    def read_all() -> None:
        with decoded(file, name="wren.flac", max_channels=64, limits=limits) as sound:
            while len(sound.read()):
                pass

    with pytest.raises(UnreadableAudioError) as caught:
        read_all()
    assert caught.value.culprit == "wren.flac"
    assert caught.value.message.startswith("wren.flac ")
    return caught.value.message
