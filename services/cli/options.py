"""Choices that several verbs offer, and their names in the contract."""

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from demiurge.audio.v1 import audio_pb2
    from demiurge.playback.v1 import playback_service_pb2
    from demiurge.query.v1 import query_service_pb2
    from google.protobuf.duration_pb2 import Duration

# The contract's bounds: out of range is better known before minutes of training.
MAX_SEED = 2**64 - 1
MAX_FILES = 100_000
MAX_FRAMES = 1_000_000
MAX_STEPS = 100_000
MAX_SOUND_SECONDS = 3600
MAX_CROSSFADE_MILLISECONDS = 1000

_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def number(value: float | None) -> float | None:
    """The value, unless it is NaN, which lies within every range: for options' callbacks."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


def address(value: str) -> str:
    """The value, unless it is neither host:port nor empty: for options' callbacks."""
    if value and not _ADDRESS.fullmatch(value):
        raise typer.BadParameter(f"{value} is not host:port.")
    return value


def duration_message(seconds: float) -> "Duration":
    """A length of time in the contract."""
    from google.protobuf.duration_pb2 import Duration

    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


class Metric(StrEnum):
    """How far two moments are from each other."""

    EUCLIDEAN = "euclidean"
    COSINE = "cosine"
    MANHATTAN = "manhattan"

    @property
    def message(self) -> "query_service_pb2.Metric.ValueType":
        """Its value in the contract."""
        from demiurge.query.v1 import query_service_pb2

        return query_service_pb2.Metric.Value(f"METRIC_{self.name}")


class Scaling(StrEnum):
    """What happens to descriptors before they are compared."""

    NONE = "none"
    STANDARDIZED = "standardized"

    @property
    def message(self) -> "query_service_pb2.Scaling.ValueType":
        """Its value in the contract."""
        from demiurge.query.v1 import query_service_pb2

        return query_service_pb2.Scaling.Value(f"SCALING_{self.name}")


class Placement(StrEnum):
    """Which samples stand for a moment."""

    PUBLISHED = "published"
    CENTERED = "centered"

    @property
    def message(self) -> "playback_service_pb2.Placement.ValueType":
        """Its value in the contract."""
        from demiurge.playback.v1 import playback_service_pb2

        return playback_service_pb2.Placement.Value(f"PLACEMENT_{self.name}")


class Encoding(StrEnum):
    """The kind of file that a piece becomes."""

    WAV_PCM16 = "wav16"
    WAV_PCM24 = "wav24"
    WAV_FLOAT = "wavfloat"
    FLAC = "flac"

    @property
    def message(self) -> "audio_pb2.AudioEncoding.ValueType":
        """Its value in the contract."""
        from demiurge.audio.v1 import audio_pb2

        return audio_pb2.AudioEncoding.Value(f"AUDIO_ENCODING_{self.name}")
