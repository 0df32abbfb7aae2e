"""The stack with observability.yml, as Prometheus, a receiver of traces and its logs see it.

Prometheus looks every second, and alerts wait for seconds in place of minutes: nothing else differs
from what an engineer brings up.
"""

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile
from demiurge.gateway.v1.gateway_service_pb2 import (
    DownloadAudioRequest,
    ListAudioRequest,
    Run,
    State,
)

from services.cli.connection import client_of
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.conftest import Stack as Client
from tests.conftest import sound
from tests.conftest import spec as run_spec
from tests.deploy.conftest import OpenContainers
from tests.deploy.observability.prometheus import Prometheus, Samples, until
from tests.deploy.observability.rules import RULES
from tests.deploy.observability.spans import Span, ancestors, spans
from tests.deploy.stack import Stack
from tests.e2e.workspace import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

OVERLAYS = ("seaweedfs", "tests", "observability", "tests-observability")
STAGES = {"generate", "extract", "index", "predict", "match", "render"}
FILES = 2
# All models at once, without loading one, in the container that sees them.
PUT = """
from pathlib import Path
from services.runtime.object_store.opening import open_store
from services.runtime.settings import RuntimeSettings, load
store, files = open_store(load(RuntimeSettings)), Path("/files")
for path in files.glob("models/**/*.*"):
    store.put(path.relative_to(files).as_posix(), path.read_bytes())
"""


@pytest.fixture(scope="module")
def watched(
    open_containers: OpenContainers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Up, with models to work with and two replicas of synth."""
    overlay = looking_often(tmp_path_factory.mktemp("often"))
    stack = open_containers(overlays=OVERLAYS, files=[overlay])
    stack.compose("build", "--quiet", "prometheus", "traces")
    with stack:
        stack.run("demiurge", "-c", PUT, options=("--entrypoint", "python"))
        stack.scale("synth", 2)
        yield stack


@pytest.fixture(scope="module")
def prometheus(watched: Stack) -> Prometheus:
    return Prometheus(watched.compose("port", "prometheus", "9090").strip())


@pytest.fixture(scope="module")
def client(watched: Stack) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in watched.environment().items():
            patch.setenv(name, value)
        settings = RuntimeSettings()
    with open_blocking_channel(watched.address, settings) as channel:
        stubs = client_of(dict.fromkeys(NOUNS, channel))
        yield Client(stubs, None, watched.folder, watched.address)


@pytest.fixture(scope="module")
def run(client: Client) -> Run:
    """A run that went through all six stages."""
    client.upload("prediction", "1.wav", sound(1.0, 1))
    created = client.create(run_spec(files=FILES))
    *_, ended = client.watch(created.id)
    assert ended.state == State.STATE_SUCCEEDED, ended.failure
    return ended


def test_every_replica_of_every_service_is_found_and_answers(
    watched: Stack, prometheus: Prometheus
) -> None:
    wanted = Counter([*NOUNS, "synth", "envoy", "prometheus"])
    found = until(
        lambda: prometheus.query("up"),
        lambda rows: _jobs(rows) == wanted and all(value == 1 for _, value in rows),
    )
    assert len({labels["instance"] for labels, _ in found}) == sum(wanted.values())
    assert _jobs(prometheus.query("demiurge_ready == 1")) == Counter([*NOUNS, "synth"])
    assert len(prometheus.query("count by (version) (demiurge_build_info)")) == 1


def test_a_run_is_counted_by_what_it_made(run: Run, client: Client, prometheus: Prometheus) -> None:
    ended = 'sum(demiurge_runs_ended_total{state="succeeded"})'
    until(lambda: prometheus.value(ended), lambda count: count == 1)

    stages = prometheus.query("sum by (stage, outcome) (demiurge_stage_duration_seconds_count)")
    assert {labels["stage"]: (labels["outcome"], value) for labels, value in stages} == (
        dict.fromkeys(STAGES, ("succeeded", 1.0))
    )
    created = 'demiurge_requests_total{method="demiurge.gateway.v1.PipelineService/CreateRun"}'
    assert prometheus.value(created) == 1
    generated = 'sum(demiurge_requests_total{job="synth", method=~".+/GenerateAudio", code="OK"})'
    assert prometheus.value(generated) == FILES
    assert prometheus.value("sum(demiurge_sound_seconds_total)") == pytest.approx(
        _seconds(client, run.result.database)
    )
    assert prometheus.value("sum(demiurge_runs_active)") == 0
    assert prometheus.value("sum(demiurge_queue_waiting)") == 0
    assert prometheus.value("sum(demiurge_queue_running)") == 0
    assert prometheus.value("sum(demiurge_object_store_duration_seconds_count)") > 0
    folders = {labels["folder"] for labels, _ in prometheus.query("demiurge_disk_free_bytes > 0")}
    assert folders == {"/scratch", "/var/lib/demiurge"}
    # Nothing went wrong, and nothing is told to have.
    assert prometheus.value("sum(demiurge_object_store_errors_total)") == 0
    assert prometheus.value("sum(demiurge_index_errors_total)") == 0


def test_one_trace_goes_from_envoy_through_the_gateway_to_a_service(
    run: Run, watched: Stack
) -> None:
    sent = _sent(watched)
    deepest = [
        [span, *ancestors(span, sent)]
        for span in sent
        if span.service == "demiurge-synth"
        and any(before.name.endswith("/CreateRun") for before in ancestors(span, sent))
    ]
    assert deepest, {(span.service, span.name) for span in sent}
    line = deepest[0]
    services = [span.service for span in reversed(line)]
    assert [one for one, next_ in pairwise([*services, ""]) if one != next_] == [
        "envoy",
        "demiurge-gateway",
        "demiurge-synth",
    ]
    assert line[-1].parent == ""
    assert len({span.trace for span in line}) == 1


def test_a_run_is_one_trace_through_every_service(run: Run, watched: Stack) -> None:
    whole = {f"demiurge-{noun}" for noun in NOUNS}

    def is_sent() -> bool:
        traces: dict[str, set[str]] = {}
        for span in _sent(watched):
            traces.setdefault(span.trace, set()).add(span.service)
        return any(whole <= services for services in traces.values())

    # Each service sends its spans a batch at a time.
    wait_until(is_sent, seconds=30)


def test_a_line_of_the_log_is_json_and_the_id_of_a_run_joins_them(run: Run, watched: Stack) -> None:
    by_noun = {
        noun: [json.loads(line) for line in watched.logs(noun).splitlines()] for noun in NOUNS
    }
    told = {
        noun: [line for line in lines if run.id in {line.get("request_id"), line.get("run_id")}]
        for noun, lines in by_noun.items()
    }
    assert all(told.values()), {noun: len(lines) for noun, lines in told.items()}
    assert {"run succeeded"} <= {line["event"] for line in told["gateway"]}
    calls = {line["request_id"] for line in by_noun["gateway"] if line.get("event") == "call"}
    # Envoy writes what it has to say every ten seconds.
    until(lambda: _passed_on(watched), lambda ids: calls - {run.id} <= ids)


def test_a_service_that_is_gone_is_told_until_it_is_back(
    watched: Stack, prometheus: Prometheus
) -> None:
    def down() -> list[str]:
        return prometheus.firing("ServiceDown")

    until(down, lambda jobs: jobs == [])
    watched.stop("playback")
    assert until(down, bool) == ["playback"]
    watched.start("playback")
    until(down, lambda jobs: jobs == [])


def looking_often(folder: Path) -> Path:
    """An overlay with a copy of Prometheus's files in which seconds stand for minutes."""
    copy = Path(shutil.copytree(RULES.parent, folder / "observability"))
    copy.chmod(0o755)
    configuration = copy / "prometheus.yml"
    configuration.write_text(configuration.read_text().replace("15s", "1s"))
    rules = copy / "alerts.yml"
    rules.write_text(re.sub(r"for: \w+", "for: 2s", rules.read_text()))
    overlay = folder / "often.yml"
    volumes = f'["{copy}:/etc/demiurge:ro", "prometheus:/prometheus"]'
    overlay.write_text(f"services: {{prometheus: {{volumes: !override {volumes}}}}}\n")
    return overlay


def _jobs(rows: Samples) -> Counter[str]:
    return Counter(labels["job"] for labels, _ in rows)


def _passed_on(stack: Stack) -> set[str]:
    """Request ids of the calls that Envoy has logged."""
    lines = [line for line in stack.logs("envoy").splitlines() if line.startswith("{")]
    return {json.loads(line)["request_id"] for line in lines}


def _sent(stack: Stack) -> list[Span]:
    return spans(stack.logs("traces"))


def _seconds(client: Client, database: str) -> float:
    """How long the sounds of a database are together."""
    seconds = 0.0
    for audio in client.client.pipeline.ListAudio(ListAudioRequest(database=database)).audio:
        request = DownloadAudioRequest(key=audio.key)
        chunks = client.client.pipeline.DownloadAudio(request)
        content = b"".join(chunk.data for chunk in chunks)
        seconds += soundfile.info(io.BytesIO(content)).duration
    return seconds
