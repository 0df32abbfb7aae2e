"""The predictor of a run, ours or anybody's: so its description is checked before it is used."""

from demiurge.gateway.v1.gateway_service_pb2 import RunSpec
from demiurge.predictor.v1.predictor_service_pb2 import GetPredictorRequest, Predictor

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.errors import InvalidInputError, SettingsMismatchError
from services.gateway.peers import Peers
from services.runtime.messages import MAX_INLINE_BYTES

FLOAT_BYTES = 4
# It is kept with the run, and its version is asked for as a predictor_id.
MAX_DESCRIPTION_BYTES = 65536
MAX_VERSION_BYTES = 255


def shares(frame_count: int, sounds: int) -> list[int]:
    """`frame_count` shared out evenly, the remainder to the first; nothing for those beyond it."""
    base, remainder = divmod(frame_count, sounds)
    return [base + (index < remainder) for index in range(sounds)]


def name_of(spec: RunSpec) -> str:
    """The predictor of a run as errors name it."""
    prediction = spec.prediction
    place = f" at {prediction.predictor_address}" if prediction.predictor_address else ""
    return f"predictor {prediction.predictor_id!r}{place}"


def settled(spec: RunSpec, predictor: Predictor) -> RunSpec:
    """`spec` with the temperature that it leaves open: 1 if `predictor` is stochastic, else 0."""
    whole = RunSpec()
    whole.CopyFrom(spec)
    if not whole.prediction.HasField("temperature"):
        whole.prediction.temperature = float(predictor.stochastic)
    return whole


async def described(spec: RunSpec, sounds: int, peers: Peers) -> Predictor:
    """What the predictor of a run says of itself; it is to continue so many `sounds`.

    Raises InvalidInputError, naming predictor and address, if that cannot be or if it cannot do
    what the run asks of it, and what asking it raises.
    """
    address = spec.prediction.predictor_address
    request = GetPredictorRequest(predictor_id=spec.prediction.predictor_id)
    async with peers.predictor_at(address) as stub:
        predictor = (await peers.ask(stub.GetPredictor, request, address=address)).predictor
    _refuse_nonsense(predictor, spec)
    _refuse_unsuitable(predictor, spec, sounds)
    return predictor


def _refuse_nonsense(predictor: Predictor, spec: RunSpec) -> None:
    features, window = len(predictor.feature_names), predictor.window_frames
    # A window goes to it in one message.
    largest = MAX_INLINE_BYTES // FLOAT_BYTES // max(features, 1)
    problems = {
        "no feature_names": not features,
        "feature_names that are not all different": len(set(predictor.feature_names)) < features,
        "window_frames 0": not window,
        f"window_frames {window}, of which a message holds {largest}": window > largest,
        "max_steps 0": not predictor.max_steps,
        "a version_id that is too long": len(predictor.version_id.encode()) > MAX_VERSION_BYTES,
        "too many words": predictor.ByteSize() > MAX_DESCRIPTION_BYTES,
    }
    for problem, found in problems.items():
        if found:
            raise InvalidInputError(
                f"{name_of(spec)} describes itself with {problem}: nothing can be predicted by "
                "it; GetPredictor of its server is to answer as the contract says",
                culprit=spec.prediction.predictor_id,
            )


def _refuse_unsuitable(predictor: Predictor, spec: RunSpec, sounds: int) -> None:
    # What zero means in ExtractionSettings.
    settings = (
        ("sample_rate_hertz", spec.extraction.sample_rate_hertz or PUBLISHED_SAMPLE_RATE_HERTZ),
        ("hop_length_samples", spec.extraction.hop_length_samples or PUBLISHED_HOP_LENGTH_SAMPLES),
    )
    for setting, wanted in settings:
        trained = getattr(predictor, setting)
        if trained != wanted:
            raise SettingsMismatchError(
                f"{name_of(spec)} was trained with {setting} {trained}, "
                f"the run extracts with {wanted}",
                culprit=setting,
            )
    longest = shares(spec.prediction.frame_count, sounds)[0]
    if longest > predictor.max_steps:
        raise InvalidInputError(
            f"frame_count {spec.prediction.frame_count} over {sounds} sounds are {longest} frames "
            f"each, {name_of(spec)} predicts at most {predictor.max_steps}",
            culprit="frame_count",
        )
    if spec.prediction.temperature > 0 and not predictor.stochastic:
        raise InvalidInputError(
            f"{name_of(spec)} is deterministic: temperature must be 0", culprit="temperature"
        )
