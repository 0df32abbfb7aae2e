"""A run as operators find it: in metrics, in a trace, and by its id in the logs of all services."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State

from services.cli.composition import Ground, build
from services.cli.connection import client_of
from services.runtime.call import Call, serving
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.logs import configure_logging
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import NOUNS, RuntimeSettings
from services.runtime.tracing import open_tracing
from tests.conftest import Stack, spec
from tests.contract.gateways import PEERS
from tests.servers.rotel import Rotel

STAGES = ("generate", "extract", "index", "predict", "match", "render")
WORK = (
    "synth.v1.SynthService/GenerateAudio",
    "descriptor.v1.DescriptorService/ExtractDescriptors",
    "query.v1.QueryService/IndexDescriptors",
    "predictor.v1.PredictorService/PredictDescriptors",
    "query.v1.QueryService/MatchDescriptors",
    "playback.v1.PlaybackService/RenderAudio",
)
CAUSE = "b7ad6b7169203331"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()
    configure_logging(RuntimeSettings(), stream)
    yield stream
    root.handlers, root.level = before


def test_a_run_is_found_in_metrics_in_a_trace_and_by_its_id_in_every_log(
    shared: Stack, log: io.StringIO, tmp_path: Path
) -> None:
    with Rotel(tmp_path) as collector:
        addresses = {f"{noun}_address": shared.address for noun in PEERS}
        store = FolderStore(shared.folder / "store")
        runtime = embedded_settings(
            RuntimeSettings(store="unused", otlp_endpoint=collector.endpoint, **addresses)
        )
        ground = Ground(runtime, store, Metrics(), tracing=open_tracing(runtime, "gateway"))

        def stages(outcome: str) -> list[float | None]:
            name = "demiurge_stage_duration_seconds_count"
            value = ground.metrics.registry.get_sample_value
            return [value(name, {"stage": stage, "outcome": outcome}) for stage in STAGES]

        def runs(name: str, **labels: str) -> float | None:
            return ground.metrics.registry.get_sample_value(f"demiurge_runs_{name}", labels)

        with (
            embedded(lambda: [build("gateway", ground)], runtime, ground.metrics) as server,
            open_blocking_channel(f"127.0.0.1:{server.port}", runtime) as channel,
        ):
            own = Stack(
                client_of(dict.fromkeys(NOUNS, channel)), store, shared.folder, shared.address
            )
            assert runs("ended_total", state="failed") == 0
            with serving(Call("r-1", traceparent=f"00-{'1' * 32}-{CAUSE}-01")):
                created = own.create(spec(seed=77))
            run = own.ended(created)
            assert run.state == State.STATE_SUCCEEDED
            assert stages("succeeded") == [1] * 6
            store.delete(run.result.audio.key)
            assert own.made(spec(seed=77)).state == State.STATE_SUCCEEDED
            assert stages("kept") == [1] * 5 + [None]
            assert runs("ended_total", state="succeeded") == 2
            assert runs("active") == 0
        ground.tracing.close()
        spans = collector.spans("run", "stage render")
    first = next(span for span in spans if span.name == "run" and span.links == [CAUSE])
    assert first.parent_id == ""
    assert first.attributes["demiurge.run_id"] == run.id
    children = [span for span in spans if span.parent_id == first.id]
    assert [span.name for span in children] == [f"stage {name}" for name in STAGES]
    assert {span.attributes["demiurge.outcome"] for span in children} == {"succeeded"}
    calls = [line for line in map(json.loads, log.getvalue().splitlines()) if "method" in line]
    for method in WORK:
        asked = [line for line in calls if line["method"] == f"/demiurge.{method}"]
        assert asked, method
        assert {line["run_id"] for line in asked} == {run.id}
        assert first.trace_id in {line["trace_id"] for line in asked}
