import io
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from services.descriptor.extraction import extract_file
from services.descriptor.mfcc import FEATURE_NAMES, ExtractionSettings
from services.errors import InvalidInputError, UnreadableAudioError

PUBLISHED = ExtractionSettings()


def encoded(samples: np.ndarray, rate: int = 44_100, subtype: str = "FLOAT") -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    file.seek(0)
    return file


def song(rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    glide = np.sin(2 * np.pi * (300 + 400 * time) * time) * np.exp(-2 * time)
    return np.outer(glide, np.linspace(0.5, 1, channels))


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_files_are_mixed_resampled_and_described_as_by_librosa(rate: int, channels: int) -> None:
    samples = song(rate, channels=channels)

    track = extract_file(encoded(samples, rate), name="song.wav", settings=PUBLISHED)

    mono = librosa.to_mono(samples.astype(np.float32).T)
    loaded = librosa.resample(mono, orig_sr=rate, target_sr=44_100, res_type="soxr_hq")
    expected = librosa.feature.mfcc(y=loaded, sr=44_100, n_mfcc=13, hop_length=1024).T
    assert track.values.shape == (len(expected), 39)
    assert np.abs(track.values[:, :13] - expected).max() < 1e-3 * np.abs(expected).max()


def test_the_track_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encoded(song(48_000), 48_000).getvalue())

    track = extract_file(path, name="Lied Nr. 1.wav", settings=ExtractionSettings(22_050, 512))

    assert track.source == "Lied Nr. 1.wav"
    assert track.feature_names == FEATURE_NAMES
    assert (track.sample_rate_hertz, track.hop_length_samples) == (22_050, 512)
    assert track.frame_count == 1 + 22_050 // 512


@pytest.mark.parametrize("container", ["FLAC", "OGG", "MP3"])
def test_the_same_sound_in_another_container_is_described_alike(container: str) -> None:
    samples = song(44_100, seconds=2, channels=2)
    file = io.BytesIO()
    soundfile.write(file, samples, 44_100, format=container)

    other = extract_file(file, name="song", settings=PUBLISHED)

    wav = extract_file(encoded(samples), name="song", settings=PUBLISHED)
    assert other.values.shape == wav.values.shape
    loudness, brightness = (
        np.corrcoef(other.values[:, column], wav.values[:, column])[0, 1] for column in (0, 1)
    )
    assert min(loudness, brightness) > 0.95


def test_the_file_is_named_when_it_cannot_be_described() -> None:
    with pytest.raises(UnreadableAudioError, match=r"notes\.wav") as text:
        extract_file(io.BytesIO(b"la la la"), name="notes.wav", settings=PUBLISHED)
    with pytest.raises(InvalidInputError, match=r"bang\.wav.*loud") as loud:
        extract_file(encoded(np.full((9_000, 1), 1e30)), name="bang.wav", settings=PUBLISHED)

    assert text.value.culprit == "notes.wav"
    assert loud.value.culprit == "bang.wav"
