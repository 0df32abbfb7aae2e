"""From a sound file to its descriptor track."""

from pathlib import Path
from typing import BinaryIO

from services.audio.reading import read_audio
from services.audio.resampling import resample, to_mono
from services.audio.track import DescriptorTrack
from services.descriptor import mfcc
from services.descriptor.mfcc import ExtractionSettings
from services.errors import InvalidInputError


def extract_file(
    source: Path | BinaryIO, *, name: str, settings: ExtractionSettings
) -> DescriptorTrack:
    """Reads one sound file, mixes it to mono, resamples and describes it.

    The track's source is `name`. Raises UnreadableAudioError or InvalidInputError, naming it.
    """
    sound = read_audio(source, name=name)
    rate = sound.sample_rate_hertz
    samples = to_mono(sound.samples)
    # An hour of many channels would otherwise stay in memory beside its mono mix.
    del sound
    samples = resample(samples[:, None], rate, settings.sample_rate_hertz)[:, 0]
    try:
        values, _ = mfcc.extract(samples, settings)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error.message}", culprit=name) from error
    return DescriptorTrack(
        feature_names=mfcc.FEATURE_NAMES,
        values=values,
        sample_rate_hertz=settings.sample_rate_hertz,
        hop_length_samples=settings.hop_length,
        source=name,
    )
