"""A piece heard while it is being joined: streamed as WAV to whatever plays it."""

from typing import TYPE_CHECKING, BinaryIO

from services.cli.connection import Client

if TYPE_CHECKING:
    from demiurge.playback.v1.playback_service_pb2 import StreamAudioRequest


def listen(client: Client, request: "StreamAudioRequest", output: BinaryIO) -> None:
    """Writes the piece to `output` as it arrives: the bytes of RenderAudio's float file."""
    from services.audio.writing import Encoding, wav_header
    from services.playback.segments import RenderSettings, timeline_of
    from services.runtime.messages import match_table_from_message

    table = match_table_from_message(request.matches)
    rate = RenderSettings(sample_rate_hertz=request.settings.sample_rate_hertz)
    frames = timeline_of(table, rate).boundary(table.frame_count)
    began = False
    for message in client.playback.StreamAudio(request):
        if not began:
            header = (frames, message.channel_count, message.sample_rate_hertz, Encoding.WAV_FLOAT)
            output.write(wav_header(*header))
            began = True
        output.write(message.samples)
        output.flush()
