"""Small messages that would ask for absurd work or memory are refused by the contract."""

from collections.abc import Callable

import protovalidate
import pytest
from demiurge.audio.v1 import audio_pb2
from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractionSettings
from demiurge.query.v1.query_service_pb2 import CollectionSpec
from google.protobuf.message import Message

Make = Callable[..., Message]

FRAMED: dict[str, Make] = {
    "MatchTable": lambda rate, hop: audio_pb2.MatchTable(
        sample_rate_hertz=rate, hop_length_samples=hop, neighbors=1
    ),
    "DescriptorTrack": lambda rate, hop: audio_pb2.DescriptorTrack(
        feature_names=["mfcc0"], sample_rate_hertz=rate, hop_length_samples=hop, values=b""
    ),
    "CollectionSpec": lambda rate, hop: CollectionSpec(
        feature_names=["mfcc0"], sample_rate_hertz=rate, hop_length_samples=hop
    ),
}


def refused(message: Message) -> list[str]:
    """Names of the fields that break a rule."""
    found = protovalidate.collect_violations(message)
    return [violation.proto.field.elements[0].field_name for violation in found]


@pytest.mark.parametrize("make", FRAMED.values(), ids=FRAMED)
def test_rates_and_hops_are_bounded(make: Make) -> None:
    assert refused(make(192_000, 65_536)) == []
    assert refused(make(1, 1)) == []
    assert refused(make(192_001, 1)) == ["sample_rate_hertz"]
    assert refused(make(1, 65_537)) == ["hop_length_samples"]
    assert refused(make(0, 0)) == ["sample_rate_hertz", "hop_length_samples"]


def test_descriptors_are_extracted_at_sensible_rates_and_hops_or_those_published() -> None:
    for rate, hop in ((0, 0), (8_000, 64), (192_000, 65_536)):
        assert not refused(ExtractionSettings(sample_rate_hertz=rate, hop_length_samples=hop))
    for rate in (-1, 1, 7_999, 192_001):
        assert refused(ExtractionSettings(sample_rate_hertz=rate)) == ["sample_rate_hertz"]
    for hop in (-1, 1, 63, 65_537):
        assert refused(ExtractionSettings(hop_length_samples=hop)) == ["hop_length_samples"]
