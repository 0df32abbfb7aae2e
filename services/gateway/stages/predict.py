"""Stage 4: each sound's timbre goes on, by its share of the piece's frames."""

from typing import TYPE_CHECKING

from demiurge.audio.v1.audio_pb2 import DescriptorTrack as TrackMessage
from demiurge.gateway.v1.gateway_service_pb2 import SkippedItem
from demiurge.gateway.v1.run_record_pb2 import Description, Descriptions, PredictedTracks
from demiurge.predictor.v1.predictor_service_pb2 import (
    PredictDescriptorsRequest,
    PredictDescriptorsResponse,
)

from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.errors import InvalidInputError, WindowTooLongError
from services.gateway.context import Advance, RunContext
from services.gateway.fan_out import fan_out
from services.gateway.predictors import name_of, shares
from services.gateway.snapshot import digest
from services.gateway.stages.generate import item_seed
from services.runtime.messages import ref_to_message, track_from_message, track_to_message

if TYPE_CHECKING:
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceAsyncStub

# Raised when continuations should be stored under other names.
ALGORITHM = 2


def items(context: RunContext) -> int:
    """Sounds that were continued."""
    return len(context.output(PredictedTracks).tracks)


async def run(context: RunContext, advance: Advance) -> PredictedTracks:
    """Continues every sound that is long enough; the others are skipped by name.

    Raises WindowTooLongError, naming the first, if none is, and InvalidInputError, naming the
    predictor, if those that are left have to go on for longer than it can.
    """
    window_frames = context.snapshot.predictor.window_frames
    sounds, skipped = [], []
    for description in context.output(Descriptions).prediction:
        if description.track.frame_count >= window_frames:
            sounds.append(description)
        else:
            reason = (
                f"{description.audio.key} has {description.track.frame_count} frames, "
                f"{name_of(context.spec)} looks at {window_frames}: use longer sounds, or a "
                "predictor with a shorter window"
            )
            skipped.append(SkippedItem(key=description.audio.key, reason=reason))
    if not sounds:
        raise WindowTooLongError(skipped[0].reason, culprit=skipped[0].key)
    steps = shares(context.spec.prediction.frame_count, len(sounds))
    most = context.snapshot.predictor.max_steps
    if steps[0] > most:
        raise InvalidInputError(
            f"frame_count {context.spec.prediction.frame_count} over the {len(sounds)} sounds that "
            f"can be continued are {steps[0]} frames each, {name_of(context.spec)} predicts at "
            f"most {most}: ask for fewer frames, or give it more sounds",
            culprit="frame_count",
        )
    parts = [(sound, share) for sound, share in zip(sounds, steps, strict=True) if share]

    async with context.peers.predictor_at(context.spec.prediction.predictor_address) as stub:

        async def predict(part: tuple[Description, int]) -> TrackMessage:
            return await continue_sound(context, stub, *part)

        tracks = await fan_out(parts, predict, concurrency=context.concurrency, advance=advance)
    return PredictedTracks(tracks=tracks, skipped=skipped)


async def continue_sound(
    context: RunContext, stub: "PredictorServiceAsyncStub", sound: Description, steps: int
) -> TrackMessage:
    """The continuation of one sound, stored; returns it by reference."""
    prediction, version_id = context.spec.prediction, context.snapshot.predictor.version_id
    window = await context.patience.stored(lambda: _window(context, sound))
    response = await context.peers.call(
        stub.PredictDescriptors,
        PredictDescriptorsRequest(
            predictor_id=version_id or prediction.predictor_id,
            window=track_to_message(window),
            steps=steps,
            seed=item_seed(context.spec.seed, "predict", sound.audio.key),
            temperature=prediction.temperature,
        ),
        address=prediction.predictor_address,
    )
    try:
        track = checked(response, window, steps, version_id)
    except InvalidInputError as error:
        raise type(error)(
            f"what {name_of(context.spec)} answered cannot be used: {error.message}",
            culprit=prediction.predictor_id,
        ) from error
    return await context.patience.stored(lambda: _store(context, sound, track))


def checked(
    response: PredictDescriptorsResponse, window: DescriptorTrack, steps: int, version_id: str
) -> DescriptorTrack:
    """The continuation in an answer: a predictor may be anybody's, so it is not just believed.

    Raises InvalidInputError if it is not `steps` frames of finite values, or says that another
    version than `version_id` gave them; SettingsMismatchError if features, rate or hop are not
    those of the window.
    """
    if response.version_id and version_id and response.version_id != version_id:
        raise InvalidInputError(
            f"version {response.version_id!r} answered, {version_id!r} was asked; run it again"
        )
    parts = [track_from_message(part) for part in response.tracks]
    frames = sum(part.frame_count for part in parts)
    if frames != steps:
        raise InvalidInputError(f"{frames} frames, {steps} were asked for")
    return DescriptorTrack.joined([window, *parts]).last(steps)


def _window(context: RunContext, sound: Description) -> DescriptorTrack:
    track = track_from_message(sound.track, context.store)
    return track.last(context.snapshot.predictor.window_frames)


def _store(context: RunContext, sound: Description, track: DescriptorTrack) -> TrackMessage:
    name = digest(ALGORITHM, sound.audio)[:16]
    predictor = context.snapshot.predictor
    stored = context.store.put(
        f"runs/{context.run_id}/predictions/{name}.json",
        # Said in the file, for descriptors of sounds look the same and may be learned from.
        write_tracks([track], predictor=predictor.version_id or predictor.id),
    )
    message = track_to_message(track, object=stored)
    message.object.CopyFrom(ref_to_message(stored))
    return message
