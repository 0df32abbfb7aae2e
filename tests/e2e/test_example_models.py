"""The GANs in examples/models: small, judged, and able to sing."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore
from services.synth.generation.synthesizer import Synthesizer
from services.synth.melgan import generator as melgan
from services.synth.unagan import generator as unagan

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = ModelStore(FolderStore(EXAMPLES))
LARGEST_BYTES = 12_000_000


def bundled(family: str) -> ModelVersion:
    (version,) = MODELS.list(family)
    return version


def loaded(family: str, load_generator: Callable[[dict[str, Any], bytes], Any]) -> Any:
    version = bundled(family)
    return load_generator(version.config, MODELS.read_weights(version))


@pytest.mark.parametrize("family", ["melgan", "unagan"])
def test_each_is_there_in_half_the_bits_with_a_card_and_a_picture(family: str) -> None:
    version = bundled(family)
    weights = load(MODELS.read_weights(version))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    card = MODELS.read_card(version)
    for told in ("Corpus", "Held out", "Made again by", "Settings", "Judged on held-out sound"):
        assert told in card
    assert set(MODELS.pictures(version)) == {"spectrogram.png"}


def test_together_they_are_small_enough_for_a_repository() -> None:
    files = [path for path in (EXAMPLES / "models").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES


def test_their_figures_hold_what_was_wanted_of_a_training_without_a_gpu() -> None:
    copies, songs = bundled("melgan").figures, bundled("unagan").figures
    assert copies["stft_distance"] <= 1.5 * copies["griffin_lim_stft_distance"]
    assert songs["frechet_distance"] <= 3 * songs["frechet_distance_half_to_half"]
    assert songs["frechet_distance"] < 0.5 * songs["frechet_distance_noise"]
    assert songs["silent_share"] == songs["clipped_share"] == 0


def test_seeds_sing_sounds_that_are_audible_unclipped_and_not_alike() -> None:
    voice, _ = loaded("melgan", melgan.load_generator)
    singer = loaded("unagan", unagan.load_generator)
    synthesizer = Synthesizer(singer, voice, unagan_id="unagan", melgan_id="melgan")
    sounds = [synthesizer.generate(44_100, seed) for seed in range(3)]
    spectra = []
    for sound in sounds:
        assert 0.01 < np.abs(sound).max() < 0.99
        bands = np.abs(np.fft.rfft(sound))[:22_000].reshape(44, 500).mean(axis=1)
        spectra.append(np.log(bands + 1e-6))
    for one, other in pairwise(spectra):
        assert np.abs(one - other).mean() > 0.2
