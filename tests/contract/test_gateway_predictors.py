"""What the gateway asks of predictors, and what it does not believe them."""

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.predictor.v1 import predictor_service_pb2 as predictor_pb

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError
from tests.conftest import PREDICTOR, RATE, Stack, sound, spec
from tests.contract.conftest import HOP, Answer, Repeater, held


def test_a_predictor_at_another_address_takes_the_place_of_ours(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, _ = repeated

    run = stack.made(spec(predictor="anything", database="material", frames=7))

    assert run.state == State.STATE_SUCCEEDED
    assert run.result.sample_count == 7 * HOP


WRONG_ANSWERS: dict[str, tuple[Answer, str, str]] = {
    "too few frames": (
        lambda window, steps: [held(window, steps - 1)],
        "INVALID_INPUT",
        "29 frames, 30 were asked for",
    ),
    "nothing": (lambda *_: [], "INVALID_INPUT", "0 frames, 30 were asked for"),
    "other features": (
        lambda window, steps: [
            DescriptorTrack(
                (*window.feature_names[:-1], "centroid"), held(window, steps).values, RATE, HOP
            )
        ],
        "SETTINGS_MISMATCH",
        "centroid",
    ),
    "another hop": (
        lambda window, steps: [
            DescriptorTrack(window.feature_names, held(window, steps).values, RATE, 512)
        ],
        "SETTINGS_MISMATCH",
        "hop_length_samples is 512",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
def test_what_a_predictor_may_not_answer_is_refused_by_its_name(
    repeated: tuple[Stack, Repeater], wrong: str
) -> None:
    stack, repeater = repeated
    repeater.answer, reason, words = WRONG_ANSWERS[wrong]

    run = stack.made(spec(predictor="repeater", database="material", seed=4))

    assert run.state == State.STATE_FAILED
    assert run.stages[3].state == State.STATE_FAILED
    assert run.failure.reason == reason
    assert "'repeater'" in run.failure.message
    assert words in run.failure.message


def test_features_in_another_order_are_put_in_theirs(repeated: tuple[Stack, Repeater]) -> None:
    stack, repeater = repeated
    wanted = spec(predictor="repeater", database="material", frames=9)
    plain = stack.made(wanted)

    def reversed_columns(window: DescriptorTrack, steps: int) -> list[DescriptorTrack]:
        return [held(window, 4).ordered(window.feature_names[::-1]), held(window, steps - 4)]

    repeater.answer = reversed_columns
    wanted.seed = 1  # another run; this predictor knows of no seed
    assert stack.made(wanted).result.audio.sha256 == plain.result.audio.sha256


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"max_steps": 20}, "frame_count 30 over 1 sounds are 30 frames each"),
        ({"hop_length_samples": 512}, "hop_length_samples 512"),
        ({"sample_rate_hertz": 16000}, "sample_rate_hertz 16000"),
    ],
)
def test_a_predictor_that_cannot_do_what_is_asked_is_refused_before_anything_is_made(
    repeated: tuple[Stack, Repeater], change: dict[str, int], culprit: str
) -> None:
    stack, repeater = repeated
    changed = predictor_pb.Predictor(**change)
    described = predictor_pb.Predictor()
    described.CopyFrom(repeater.described)
    described.MergeFrom(changed)
    repeater.described = described
    before = stack.files()

    with pytest.raises(InvalidInputError, match=culprit):
        stack.create(spec(predictor="repeater", database="material", seed=11))

    assert stack.files() == before


def test_a_predictor_is_not_asked_for_more_steps_than_it_can_once_sounds_were_skipped(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    described = predictor_pb.Predictor()
    described.CopyFrom(repeater.described)
    described.max_steps = 20
    repeater.described = described
    stack.upload("uneven", "long.wav", sound(1.0, 1))
    stack.upload("uneven", "short.wav", sound(0.05, 2))

    run = stack.made(spec(predictor="repeater", database="material", prediction="uneven"))

    assert run.state == State.STATE_FAILED
    assert run.failure.reason == "INVALID_INPUT"
    assert "over the 1 sounds that can be continued are 30 frames" in run.failure.message
    assert "'repeater' predicts at most 20" in run.failure.message
    assert not repeater.asked.is_set()


def test_a_deterministic_predictor_is_not_asked_to_be_warm(shared: Stack) -> None:
    wanted = spec(database="material")
    wanted.prediction.temperature = 0.5

    with pytest.raises(InvalidInputError, match=f"'{PREDICTOR}' is deterministic"):
        shared.create(wanted)
