"""From a sound file to its descriptor track."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.audio.reading import open_audio
from services.audio.resampling import resample_blocks, to_mono
from services.audio.track import DescriptorTrack
from services.descriptor import mfcc
from services.descriptor.description import Description
from services.descriptor.mfcc import FEATURE_NAMES, ExtractionSettings
from services.descriptor.spool import FloatArray, Spool
from services.errors import InvalidInputError, UnreadableAudioError


def extract_file(
    source: Path | BinaryIO, *, name: str, settings: ExtractionSettings
) -> DescriptorTrack:
    """Reads one sound file, mixes it to mono, resamples and describes it.

    The track's source is `name`. Raises UnreadableAudioError or InvalidInputError, naming it.
    """
    with described(source, name=name, settings=settings) as description:
        return description.track()


@contextmanager
def described(
    source: Path | BinaryIO,
    *,
    name: str,
    settings: ExtractionSettings,
    checkpoint: Callable[[], None] = lambda: None,
) -> Iterator[Description]:
    """The description of a sound of any length, at hand until the context ends.

    Memory does not grow with the length; what must wait for the end lies in temporary files.
    `checkpoint` is called with every block, and what it raises ends the work. Raises as
    extract_file does, and StorageFullError if there is no room for the temporary files.
    """

    def mono() -> Iterator[FloatArray]:
        for block in sound.blocks():
            checkpoint()
            yield to_mono(block)

    with Spool(len(FEATURE_NAMES), checkpoint) as features:
        with open_audio(source, name=name) as sound:
            samples = resample_blocks(mono(), sound.sample_rate_hertz, settings.sample_rate_hertz)
            try:
                mfcc.extract_blocks(samples, settings, features)
            except UnreadableAudioError:
                raise
            except InvalidInputError as error:
                raise InvalidInputError(f"{name}: {error.message}", culprit=name) from error
        yield Description(name, settings, features)
