"""From a sound file to its descriptor track."""

from pathlib import Path
from typing import BinaryIO

from services.audio.reading import Sound, read_audio
from services.audio.resampling import resample, to_mono
from services.audio.track import DescriptorTrack
from services.descriptor import mfcc
from services.descriptor.mfcc import ExtractionSettings
from services.errors import InvalidInputError


def extract_file(
    source: Path | BinaryIO, *, name: str, settings: ExtractionSettings
) -> DescriptorTrack:
    """Reads and describes one sound file; the track's source is `name`.

    Raises UnreadableAudioError or InvalidInputError, naming `name`.
    """
    return extract_sound(read_audio(source, name=name), settings)


def extract_sound(sound: Sound, settings: ExtractionSettings) -> DescriptorTrack:
    """Describes one sound, mixed to mono and resampled; raises InvalidInputError, naming it."""
    mono = to_mono(sound.samples)[:, None]
    samples = resample(mono, sound.sample_rate_hertz, settings.sample_rate_hertz)[:, 0]
    try:
        values, _ = mfcc.extract(samples, settings)
    except InvalidInputError as error:
        raise InvalidInputError(f"{sound.name}: {error.message}", culprit=sound.name) from error
    return DescriptorTrack(
        feature_names=mfcc.FEATURE_NAMES,
        values=values,
        sample_rate_hertz=settings.sample_rate_hertz,
        hop_length_samples=settings.hop_length,
        source=sound.name,
    )
