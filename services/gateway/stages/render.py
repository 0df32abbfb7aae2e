"""Stage 6: the matched moments joined into the piece."""

from demiurge.audio.v1.audio_pb2 import MatchTable
from demiurge.gateway.v1.gateway_service_pb2 import RunResult
from demiurge.gateway.v1.run_record_pb2 import IndexedMaterial, Material
from demiurge.playback.v1.playback_service_pb2 import RenderAudioRequest

from services.gateway.context import Advance, RunContext


def items(context: RunContext) -> int:  # noqa: ARG001 - as all stages
    """The piece."""
    return 1


async def run(context: RunContext, advance: Advance) -> RunResult:
    """Renders the piece; n matched frames last exactly n hops."""
    advance(0, 1)
    request = RenderAudioRequest(
        matches=context.output(MatchTable),
        settings=context.spec.render,
        output_prefix=f"renders/{context.run_id}",
    )
    rendered = await context.peers.call(context.peers.playback.RenderAudio, request)
    advance(1, 1)
    return RunResult(
        audio=rendered.audio,
        edit_list=rendered.edit_list,
        spectrogram=rendered.spectrogram,
        sample_rate_hertz=rendered.sample_rate_hertz,
        sample_count=rendered.sample_count,
        channel_count=rendered.channel_count,
        peak=rendered.peak,
        source_count=rendered.source_count,
        collection_id=context.output(IndexedMaterial).collection_id,
        database=context.output(Material).database,
    )
