"""Stage 5: each predicted frame is answered by the nearest moment of the material."""

from demiurge.audio.v1.audio_pb2 import DescriptorTrack as TrackMessage
from demiurge.audio.v1.audio_pb2 import MatchTable as MatchTableMessage
from demiurge.gateway.v1.run_record_pb2 import IndexedMaterial, PredictedTracks
from demiurge.query.v1.query_service_pb2 import MatchDescriptorsRequest

from services.audio.match_table import MatchTable
from services.gateway.context import Advance, RunContext
from services.gateway.fan_out import fan_out
from services.runtime.messages import (
    match_table_from_message,
    match_table_to_message,
)


def items(context: RunContext) -> int:
    """Continuations."""
    return len(context.output(PredictedTracks).tracks)


async def run(context: RunContext, advance: Advance) -> MatchTableMessage:
    """Matches every continuation exactly, and joins the tables in order."""
    peers = context.peers
    collection = context.output(IndexedMaterial).collection_id

    async def match(track: TrackMessage) -> MatchTable:
        request = MatchDescriptorsRequest(collection_id=collection, track=track, neighbors=1)
        response = await peers.call(peers.query.MatchDescriptors, request)
        return match_table_from_message(response.matches)

    tables = await fan_out(
        list(context.output(PredictedTracks).tracks),
        match,
        concurrency=context.concurrency,
        advance=advance,
    )
    return match_table_to_message(MatchTable.joined(tables))
