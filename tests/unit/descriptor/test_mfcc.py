from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.descriptor import mfcc, spool
from services.descriptor.mfcc import (
    FEATURE_NAMES,
    ExtractionSettings,
    deltas_are_zero,
    extract,
    extract_blocks,
)
from services.descriptor.spool import Spool
from services.errors import InvalidInputError

PUBLISHED = ExtractionSettings()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, so that the dynamic range matters."""
    rng = np.random.default_rng(seed)
    envelope = np.linspace(0, 1, samples) ** 8
    return (rng.uniform(-1, 1, samples) * envelope).astype(np.float32)


def plain_librosa(samples: np.ndarray, settings: ExtractionSettings) -> np.ndarray:
    coefficients = librosa.feature.mfcc(
        y=samples,
        sr=settings.sample_rate_hertz,
        n_mfcc=13,
        n_fft=2048,
        hop_length=settings.hop_length,
    )
    derivatives = [librosa.feature.delta(coefficients, order=order) for order in (1, 2)]
    return np.concatenate([coefficients, *derivatives]).T


@pytest.mark.parametrize(
    "settings",
    [PUBLISHED, ExtractionSettings(22_050, 512), ExtractionSettings(48_000, 3_000)],
    ids=str,
)
@pytest.mark.parametrize("length", [9 * 3_000, 44_100, 600_000])
def test_features_are_those_of_librosa(settings: ExtractionSettings, length: int) -> None:
    samples = noise(length)

    values, zero = extract(samples, settings)

    expected = plain_librosa(samples, settings)
    assert values.shape == expected.shape == (1 + length // settings.hop_length, 39)
    assert not zero
    largest = np.abs(expected).max(axis=0)
    assert (np.abs(values - expected) / largest).max() < 1e-5


def test_values_are_rows_of_float32_in_the_order_of_the_names() -> None:
    values, _ = extract(noise(44_100), PUBLISHED)

    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert tuple(f"mfcc{i}" for i in range(39)) == FEATURE_NAMES
    # The first coefficient is loudness: it grows with the envelope, and its delta is positive.
    assert values[-5, 0] > values[5, 0]
    assert values[20:, 13].mean() > 0


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10])
def test_sounds_shorter_than_the_delta_window_have_zero_deltas(frames: int) -> None:
    values, zero = extract(noise((frames - 1) * 1024 + 1, seed=3), PUBLISHED)

    assert len(values) == frames
    assert zero == deltas_are_zero(frames) == (frames < 9)
    assert values[:, :13].any()
    assert bool(values[:, 13:].any()) is not zero


def test_one_sample_and_silence_can_be_described() -> None:
    for samples in (np.ones(1, np.float32), np.zeros(20_000, np.float32)):
        values, _ = extract(samples, PUBLISHED)
        assert np.isfinite(values).all()


def test_the_loudest_moment_of_the_file_sets_the_floor() -> None:
    rng = np.random.default_rng(0)
    quiet = rng.uniform(-1e-4, 1e-4, 50_000).astype(np.float32)
    with_a_bang = quiet.copy()
    with_a_bang[-5_000:] *= 1e5

    alone, _ = extract(quiet, PUBLISHED)
    beside, _ = extract(with_a_bang, PUBLISHED)

    assert np.abs(alone[:10, 0] - beside[:10, 0]).min() > 1


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(300_000)
    whole, _ = extract(samples, PUBLISHED)

    monkeypatch.setattr(mfcc, "_BLOCK_FRAMES", 7)
    in_pieces, _ = extract(samples, PUBLISHED)

    assert np.abs(whole - in_pieces).max() < 1e-3


def of_the_whole(samples: np.ndarray, settings: ExtractionSettings) -> np.ndarray:
    """The features as they follow from all decibels at once."""
    blocks = list(mfcc._mel_power([samples], settings))
    decibels = librosa.power_to_db(np.concatenate(blocks, axis=1), top_db=80.0)
    coefficients = librosa.feature.mfcc(S=decibels, n_mfcc=13)
    derivatives = [
        librosa.feature.delta(coefficients, order=order)
        if len(coefficients.T) >= 9
        else np.zeros_like(coefficients)
        for order in (1, 2)
    ]
    return np.concatenate([coefficients, *derivatives]).T


def in_blocks(samples: np.ndarray, settings: ExtractionSettings, cuts: list[int]) -> np.ndarray:
    with Spool(39) as features:
        extract_blocks(np.split(samples, cuts), settings, features)
        return np.concatenate(list(features.rows()))


@settings(max_examples=150, deadline=None)
@given(
    hop=st.sampled_from([64, 300, 1024, 3_000]),
    frames=st.integers(1, 70),
    beside=st.integers(-1, 1),
    data=st.data(),
)
def test_blocks_of_any_length_give_the_bits_of_the_whole(
    hop: int, frames: int, beside: int, data: st.DataObject
) -> None:
    length = max(1, frames * hop + beside)
    cuts = sorted(data.draw(st.sets(st.integers(0, length), max_size=6)))
    samples, extraction = noise(length), ExtractionSettings(hop_length=hop)
    block_frames = data.draw(st.integers(1, 24))
    whole = of_the_whole(samples, extraction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "BLOCK_FRAMES", block_frames)

        assert in_blocks(samples, extraction, cuts).tobytes() == whole.tobytes()
        assert extract(samples, extraction)[0].tobytes() == whole.tobytes()


@pytest.mark.parametrize("frames", [*range(1, 21), *range(1_015, 1_040), 2_048, 2_051])
def test_block_edges_leave_no_trace_in_bits(frames: int) -> None:
    samples, extraction = noise(64 * frames, seed=frames), ExtractionSettings(hop_length=64)

    assert extract(samples, extraction)[0].tobytes() == of_the_whole(samples, extraction).tobytes()


def test_threads_get_the_same_bits_as_one_after_the_other() -> None:
    sounds = [noise(60_000 + 5_000 * seed, seed) for seed in range(12)]
    alone = [extract(samples, PUBLISHED)[0].tobytes() for samples in sounds]

    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda samples: extract(samples, PUBLISHED)[0].tobytes(), sounds * 3)
        )

    assert together == alone * 3


@pytest.mark.parametrize("rate", [1_000, 8_000, 96_000, 176_400])
def test_other_rates_can_be_described(rate: int) -> None:
    values, _ = extract(noise(30_000), ExtractionSettings(sample_rate_hertz=rate))

    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "samples", [np.zeros(0, np.float32), np.zeros((10, 1), np.float32)], ids=["none", "2-D"]
)
def test_what_is_not_one_channel_of_sound_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="shape"):
        extract(samples, PUBLISHED)


def test_samples_whose_power_overflows_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="loud"):
        extract(np.full(10_000, 1e30, np.float32), PUBLISHED)


@pytest.mark.parametrize("field", ["sample_rate_hertz", "hop_length"])
@pytest.mark.parametrize("value", [0, -1])
def test_settings_that_cannot_be_are_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(InvalidInputError, match=field) as caught:
        ExtractionSettings(**{field: value})

    assert caught.value.culprit == field
