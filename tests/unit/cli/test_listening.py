"""A piece sent to standard output, from a real playback service."""

import io
from pathlib import Path

import numpy as np
import pytest
from demiurge.audio.v1 import audio_pb2
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1.playback_service_pb2_grpc import add_PlaybackServiceServicer_to_server

from services.audio.writing import Encoding, write_audio
from services.cli.connection import client_of
from services.cli.listening import listen
from services.playback.servicer import PlaybackServicer
from services.playback.settings import PlaybackSettings
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded
from services.runtime.messages import ref_to_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.server import Registration
from services.runtime.settings import NOUNS, RuntimeSettings

RUNTIME = RuntimeSettings(port=0)


@pytest.mark.parametrize("rate", [0, 22_050])
def test_what_is_heard_is_the_file_that_would_be_rendered(tmp_path: Path, rate: int) -> None:
    store = FolderStore(tmp_path)
    file = io.BytesIO()
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (100_000, 2))
    write_audio(file, samples, 44_100, Encoding.WAV_FLOAT)
    matches = audio_pb2.MatchTable(
        sources=[ref_to_message(store.put("audio/birds/wren.wav", file.getvalue()))],
        sample_rate_hertz=44_100,
        hop_length_samples=1023,
        neighbors=1,
        source_indices=[0] * 101,
        start_samples=[(frame * 7919) % 90_000 for frame in range(101)],
        distances=[0.0] * 101,
    )
    settings = pb.RenderSettings(
        encoding=audio_pb2.AUDIO_ENCODING_WAV_FLOAT, sample_rate_hertz=rate
    )

    def build() -> list[Registration]:
        servicer = PlaybackServicer(PlaybackSettings(), store)
        return [
            Registration(
                "demiurge.playback.v1.PlaybackService",
                lambda server: add_PlaybackServiceServicer_to_server(servicer, server),
                shut_down=servicer.shut_down,
            )
        ]

    heard = io.BytesIO()
    with (
        embedded(build, RUNTIME, Metrics()) as server,
        open_blocking_channel(f"127.0.0.1:{server.port}", RUNTIME) as channel,
    ):
        client = client_of(dict.fromkeys(NOUNS, channel))
        listen(client, pb.StreamAudioRequest(matches=matches, settings=settings), heard)
        rendered = client.playback.RenderAudio(
            pb.RenderAudioRequest(matches=matches, settings=settings, output_prefix="renders/r")
        )

    assert heard.getvalue() == store.read(rendered.audio.key)
