"""What the gateway asks of predictors, and what it does not believe them."""

import threading

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import RunSpec, State
from demiurge.predictor.v1 import predictor_service_pb2 as predictor_pb

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, UnavailableError
from tests.conftest import PREDICTOR, RATE, Stack, sound, spec
from tests.contract.conftest import HOP, Answer, Repeater, held, served
from tests.contract.gateways import free_port, gateway


def test_a_predictor_at_another_address_takes_the_place_of_ours(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, _ = repeated

    run = stack.made(spec(predictor="anything", database="material", frames=7))

    assert run.state == State.STATE_SUCCEEDED
    assert run.result.sample_count == 7 * HOP


def at(address: str, seed: int = 0) -> RunSpec:
    """A run with a predictor of its own."""
    wanted = spec(predictor="repeater", database="material", seed=seed)
    wanted.prediction.predictor_address = address
    return wanted


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
    repeater.described = described(repeater, **change)
    before = stack.files()

    with pytest.raises(InvalidInputError, match=culprit):
        stack.create(spec(predictor="repeater", database="material", seed=11))

    assert stack.files() == before


def described(repeater: Repeater, **change: object) -> predictor_pb.Predictor:
    changed = predictor_pb.Predictor()
    changed.CopyFrom(repeater.described)
    for field, value in change.items():
        changed.ClearField(field)  # type: ignore[arg-type]
        changed.MergeFrom(predictor_pb.Predictor(**{field: value}))  # type: ignore[arg-type]
    return changed


NONSENSE: dict[str, tuple[dict[str, object], str]] = {
    "no window": ({"window_frames": 0}, "window_frames 0"),
    "an endless window": ({"window_frames": 2**32 - 1}, "of which a message holds 6721"),
    "no features": ({"feature_names": []}, "no feature_names"),
    "a feature twice": ({"feature_names": ["mfcc0", "mfcc0"]}, "not all different"),
    "no steps": ({"max_steps": 0}, "max_steps 0"),
    "an endless version": ({"version_id": "a" * 256}, "version_id that is too long"),
    "a novel": ({"architecture": "a" * 70_000}, "too many words"),
}


@pytest.mark.parametrize("wrong", NONSENSE)
def test_a_description_that_cannot_be_is_refused_by_predictor_and_address(
    shared: Stack, wrong: str
) -> None:
    change, words = NONSENSE[wrong]
    repeater = Repeater()
    repeater.described = described(repeater, **change)
    before = shared.files()

    with served(repeater) as address, pytest.raises(InvalidInputError, match=words) as raised:
        shared.create(at(address))

    assert f"predictor 'repeater' at {address}" in raised.value.message
    assert shared.files() == before


def test_a_predictor_is_not_asked_for_more_steps_than_it_can_once_sounds_were_skipped(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.described = described(repeater, max_steps=20)
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


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_run_records_the_temperature_that_it_was_not_told(
    repeated: tuple[Stack, Repeater], stochastic: bool
) -> None:
    stack, repeater = repeated
    repeater.described = described(repeater, stochastic=stochastic)
    wanted = spec(predictor="repeater", database="material", seed=21 + stochastic)

    run = stack.made(wanted)
    wanted.prediction.temperature = float(stochastic)
    told = stack.made(wanted)

    assert run.state == State.STATE_SUCCEEDED, run.failure.message
    assert run.spec.prediction.HasField("temperature")
    assert run.spec.prediction.temperature == float(stochastic)
    assert repeater.temperatures[-1] == float(stochastic)
    assert told.id == run.id


def test_a_stochastic_predictor_may_be_asked_for_its_most_likely(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.described = described(repeater, stochastic=True)
    wanted = spec(predictor="repeater", database="material", seed=23)
    drawn = stack.made(wanted)
    wanted.prediction.temperature = 0

    run = stack.made(wanted)

    assert run.id != drawn.id
    assert run.spec.prediction.temperature == 0
    assert repeater.temperatures[-1] == 0


def test_a_run_may_have_a_predictor_of_its_own(shared: Stack) -> None:
    repeater = Repeater()

    with served(repeater) as address:
        run = shared.made(at(address))
        ours = shared.made(spec(database="material"))

    assert run.state == State.STATE_SUCCEEDED
    assert repeater.asked.is_set()
    assert run.spec.prediction.predictor_address == address
    assert run.result.audio.sha256 != ours.result.audio.sha256


@pytest.mark.parametrize("address", ["example.org:50051", "127.0.0.2:50051", "[::2]:50051"])
def test_a_run_may_not_have_the_gateway_connect_anywhere(shared: Stack, address: str) -> None:
    with pytest.raises(InvalidInputError, match="DEMIURGE_GATEWAY_PREDICTOR_ADDRESSES") as raised:
        shared.create(at(address))
    assert address in raised.value.message


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "localhost:",
        "unix:/tmp/socket",
        "dns:///localhost:1",
        "a b:1",
        ":1",
        "a:123456",
    ],
)
def test_what_is_no_host_and_port_breaks_the_contract(shared: Stack, address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"spec\.prediction\.predictor_address"):
        shared.create(at(address))


def test_an_operator_says_where_runs_may_have_their_predictors(shared: Stack) -> None:
    with served(Repeater()) as address:
        with (
            gateway(shared, predictor_addresses="none") as strict,
            pytest.raises(InvalidInputError, match="who runs it allows it by"),
        ):
            strict.create(at(address, seed=1))
        with gateway(shared, predictor_addresses=f"example.org:1,{address}") as open_to_it:
            assert open_to_it.made(at(address, seed=1)).state == State.STATE_SUCCEEDED


def test_an_absent_predictor_of_a_run_is_told_by_its_address(shared: Stack) -> None:
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(UnavailableError, match=f"the predictor at {address} cannot") as raised:
        shared.create(at(address))

    assert "DEMIURGE_PREDICTOR_ADDRESS" not in raised.value.message


def test_a_predictor_that_answers_with_another_version_is_not_taken_for_the_one_asked(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.described = described(repeater, version_id="repeater@1")
    repeater.version_id = "repeater@2"

    run = stack.made(spec(predictor="repeater", database="material", seed=5))

    assert run.failure.reason == "INVALID_INPUT"
    assert "'repeater@2' answered, 'repeater@1' was asked" in run.failure.message


def test_a_predictor_of_a_run_that_is_away_for_a_while_is_waited_for(shared: Stack) -> None:
    first, second = Repeater(), Repeater()
    first.may_answer.clear()
    with served(first) as address:
        run = shared.create(at(address, seed=2))
        assert first.asked.wait(60)
    timer = threading.Timer(1.0, first.may_answer.set)
    timer.start()
    with served(second, int(address.rpartition(":")[2])):
        ended = shared.ended(run)
    timer.join()

    assert ended.state == State.STATE_SUCCEEDED, ended.failure.message
    assert second.asked.is_set()


def test_one_that_stays_away_ends_the_run_by_its_address(shared: Stack) -> None:
    repeater = Repeater()
    repeater.may_answer.clear()
    with gateway(shared, patience_seconds=0.5) as hasty:
        with served(repeater) as address:
            run = hasty.create(at(address, seed=3))
            assert repeater.asked.wait(60)
        ended = hasty.ended(run)

    assert ended.failure.reason == "UNAVAILABLE"
    assert f"the predictor at {address} was away" in ended.failure.message


def test_an_interrupted_run_goes_on_at_its_own_predictor(shared: Stack) -> None:
    repeater = Repeater()
    repeater.may_answer.clear()
    with served(repeater) as address:
        with gateway(shared) as first:
            run = first.create(at(address, seed=6))
            assert repeater.asked.wait(60)
        repeater.asked.clear()
        repeater.may_answer.set()
        with gateway(shared) as second:
            again = second.made(at(address, seed=6))

    assert again.id == run.id
    assert again.state == State.STATE_SUCCEEDED, again.failure.message
    assert repeater.asked.is_set()
