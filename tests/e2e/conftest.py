"""Sounds that are damaged or unusual, and models that do not fit each other."""

import io
import struct
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from services.runtime.model_store import ModelStore
from tests.conftest import PREDICTOR, RATE, UNAGAN, OpenStack, Stack, samples, sound
from tests.e2e.trouble import Ground, troubled_ground
from tests.servers.seaweed import Seaweed

Files = Mapping[str, bytes]


def encoded(subtype: str, values: np.ndarray) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, values, RATE, format="WAV", subtype=subtype)
    return content.getvalue()


def claiming(size: int) -> bytes:
    """A WAV file whose header claims `size` bytes of samples."""
    content = bytearray(sound(0.3))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    return bytes(content)


def with_nan() -> bytes:
    values = samples(0.3, 1)
    values[100] = np.nan
    return encoded("FLOAT", values)


GOOD: Files = {"good.wav": sound(0.4, 1)}
UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "a text": (
        "text.wav",
        b"No sound, whatever its name says.\n" * 50,
        "cannot be decoded",
    ),
    "a truncated file": ("cut.wav", sound(0.5)[:20_000], "is truncated"),
    "a header that claims 2 GB": ("boast.wav", claiming(2**31), "claims 2147483648 bytes"),
    "NaN": ("nan.wav", with_nan(), "not finite"),
    "nothing": ("nothing.wav", b"", "is empty"),
}
UNUSUAL: dict[str, tuple[str, bytes]] = {
    "8 bits": ("8 bits.wav", encoded("PCM_U8", samples(0.4, 2))),
    "64 channels": ("64.wav", encoded("PCM_16", np.tile(samples(0.3, 3)[:, None], 64))),
    "spaces": ("  a name   with spaces .wav", sound(0.4, 4)),
    "unicode": ("Ünïcödé 鳥 🐦.wav", sound(0.4, 5)),
    "dots": ("..wav..wav", sound(0.4, 6)),
    "no extension": ("wren", sound(0.4, 7)),
}


@pytest.fixture(scope="module")
def stack(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One for all rows, each of which has databases of its own."""
    with open_stack(tmp_path_factory.mktemp("bad-input")) as opened:
        store_models_that_do_not_fit(ModelStore(opened.store))
        yield opened


def store_models_that_do_not_fit(models: ModelStore) -> None:
    """Copies of the trained ones, whose settings say something else."""

    def save(family: str, of: str, name: str, config: dict[str, Any]) -> None:
        weights = models.read_weights(models.find(family, of))
        own = {key: value for key, value in config.items() if not key.startswith("weights_")}
        models.save(family, name, 1, weights=weights, config=own, card="", best=True)

    singer = models.find("unagan", UNAGAN).config
    others = {"sample_rate_hertz": 22050, "hop_length": 32, "n_mels": 20, "n_fft": 512}
    for setting, value in others.items():
        config = deepcopy(singer)
        config["mel"][setting] = value
        save("unagan", UNAGAN, f"other-{setting}", config)
    follower = deepcopy(models.find("predictor", PREDICTOR).config)
    follower["feature_names"][0] = "centroid"
    save("predictor", PREDICTOR, "other-features", follower)


@pytest.fixture(scope="session")
def ground(
    open_stack: OpenStack,
    seaweed: Seaweed,
    trained_models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    """Services to be killed and frozen; whoever does so brings them back."""
    folder = tmp_path_factory.mktemp("troubled")
    with troubled_ground(open_stack, seaweed, trained_models, folder) as opened:
        yield opened
