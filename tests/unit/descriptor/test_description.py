import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
import soundfile

from services.audio.statistics import FeatureStatistics
from services.audio.track_json import read_tracks, write_track, write_tracks
from services.descriptor.description import stored_description
from services.descriptor.extraction import described, extract_file
from services.descriptor.mfcc import ExtractionSettings
from services.errors import CancelledError, CorruptObjectError

SETTINGS = ExtractionSettings()
NAME = 'a "b", [c].wav'


def wav(seconds: float) -> io.BytesIO:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (int(seconds * 48_000), 2))
    soundfile.write(file, samples, 48_000, format="WAV", subtype="PCM_16")
    return file


@pytest.fixture(scope="module", params=[0.01, 0.1, 0.5, 50.0])
def sound(request: pytest.FixtureRequest) -> io.BytesIO:
    return wav(request.param)


def test_the_file_and_the_moments_are_bit_for_bit_those_of_the_whole_track(
    sound: io.BytesIO,
) -> None:
    track = extract_file(sound, name=NAME, settings=SETTINGS)
    moments = FeatureStatistics.of(track)
    file = io.BytesIO()

    with described(sound, name=NAME, settings=SETTINGS) as description:
        write_track(file, description)
        found = description.statistics()

    assert file.getvalue() == write_tracks([track])
    assert found.means.tobytes() == moments.means.tobytes()
    assert found.variances.tobytes() == moments.variances.tobytes()
    assert found.frame_count == moments.frame_count == track.frame_count


def test_what_was_stored_is_read_back_as_it_was_described(sound: io.BytesIO) -> None:
    file = io.BytesIO()
    with described(sound, name=NAME, settings=SETTINGS) as description:
        write_track(file, description)
        track, moments = description.track(), description.statistics()
    file.seek(0)

    with stored_description(file, key="key", source=NAME, settings=SETTINGS) as stored:
        assert stored.deltas_are_zero == description.deltas_are_zero
        assert stored.track().values.tobytes() == track.values.tobytes()
        assert stored.statistics().variances.tobytes() == moments.variances.tobytes()

    [again] = read_tracks(file.getvalue(), source="key")
    assert again.values.tobytes() == track.values.tobytes()
    assert (again.source, again.sample_rate_hertz, again.hop_length_samples) == (NAME, 44_100, 1024)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda columns: columns.pop(name)


def with_value(name: str, row: int, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda columns: columns[name].__setitem__(row, value)


@pytest.mark.parametrize(
    "damage",
    [
        *(without("_id"), without("_sample"), without("mfcc7"), without("_hop_length")),
        with_value("_id", 3, "other.wav"),
        with_value("_sample", 3, 3 * 1024 + 1),
        with_value("mfcc7", 0, None),
        with_value("mfcc7", 0, 1e300),
        lambda columns: columns["mfcc38"].pop(),
        lambda columns: columns["_id"].append(NAME),
        lambda columns: columns.update(mfcc39=columns["mfcc0"]),
        lambda columns: columns.update(_hop_length=512),
        lambda columns: columns.update(_sample_rate=[44_100]),
        lambda columns: columns.update(_id=NAME),
        lambda columns: [columns.update({name: []}) for name in list(columns)[:-2]],
    ],
)
def test_another_content_than_was_stored_is_refused_by_its_key(
    damage: Callable[[dict[str, Any]], object],
) -> None:
    columns = orjson.loads(write_tracks([extract_file(wav(0.5), name=NAME, settings=SETTINGS)]))
    damage(columns)

    with (
        pytest.raises(CorruptObjectError, match=r"^some/key: .*delete it") as caught,
        stored_description(
            io.BytesIO(orjson.dumps(columns)), key="some/key", source=NAME, settings=SETTINGS
        ),
    ):
        pytest.fail("was read")

    assert caught.value.culprit == "some/key"


def test_whoever_leaves_ends_the_work_at_the_next_block_wherever_it_is() -> None:
    sound = wav(60)
    calls, leaving = 0, 10**9

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls >= leaving:
            raise CancelledError("gone")

    def work() -> bytes:
        nonlocal calls
        calls = 0
        file = io.BytesIO()
        with described(sound, name=NAME, settings=SETTINGS, checkpoint=checkpoint) as description:
            write_track(file, description)
            description.statistics()
        file.seek(0)
        with stored_description(
            file, key="key", source=NAME, settings=SETTINGS, checkpoint=checkpoint
        ):
            return file.getvalue()

    work()
    # A block of sound, of decibels, of features, a column, the moments, a column read back.
    for leaving in [*range(1, calls, 17), calls]:
        with pytest.raises(CancelledError):
            work()
        assert calls == leaving
