"""Metrics: what a service counts and times, as Prometheus reads it at /metrics.

One `Metrics` a process, with a registry of its own, made by the composition root and handed on.
Labels come from what the code knows beforehand, never from what callers write: so many series there
are, and no more. https://prometheus.io/docs/practices/naming/
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.errors import ConfigurationError
from services.runtime.settings import RuntimeSettings

CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNKNOWN_METHOD = "unknown"

DeviceMemory = Mapping[tuple[str, str], float]
"""Bytes by (device, kind), as ("cuda:0", "allocated")."""


class Metrics:
    """Everything that is counted. To count never fails, and never blocks on who reads."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Info("demiurge_build", "What runs here.", registry=registry)
        build.info({"version": _version()})
        self.ready = Gauge(
            "demiurge_ready", "1 if loaded, warm and not draining, else 0.", registry=registry
        )
        self.requests = Counter(
            "demiurge_requests_total",
            "Calls that ended, by method and gRPC status code; health checks are not counted.",
            ("method", "code"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "demiurge_request_duration_seconds",
            "From a call's arrival to its end, time in queues included.",
            ("method",),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "demiurge_requests_in_flight", "Calls being served.", ("method",), registry=registry
        )
        self.queue_waiting = Gauge(
            "demiurge_queue_waiting", "Work that waits in line.", ("queue",), registry=registry
        )
        self.queue_running = Gauge(
            "demiurge_queue_running", "Work under way.", ("queue",), registry=registry
        )
        self.queue_capacity = Gauge(
            "demiurge_queue_capacity",
            "How much may wait in line before calls are refused.",
            ("queue",),
            registry=registry,
        )
        self.queue_wait = Histogram(
            "demiurge_queue_wait_seconds",
            "How long work waited in line before it began.",
            ("queue",),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self.queue_refused = Counter(
            "demiurge_queue_refused_total",
            "Calls refused because the line was full.",
            ("queue",),
            registry=registry,
        )
        self.batch_items = Histogram(
            "demiurge_batch_items",
            "Sounds asked for by one batch.",
            buckets=ITEMS,
            registry=registry,
        )
        self.sound_seconds = Counter(
            "demiurge_sound_seconds_total",
            "Seconds of sound made; what was found made already is not counted.",
            ("method",),
            registry=registry,
        )
        self.stage_duration = Histogram(
            "demiurge_stage_duration_seconds",
            "Stages of runs; outcome is succeeded, kept (its result was there), failed, cancelled.",
            ("stage", "outcome"),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.runs_active = Gauge("demiurge_runs_active", "Runs at work here.", registry=registry)
        self.runs_ended = Counter(
            "demiurge_runs_ended_total",
            "Runs that ended here; state is succeeded, failed, cancelled or interrupted.",
            ("state",),
            registry=registry,
        )
        self.object_store_errors = Counter(
            "demiurge_object_store_errors_total",
            "Operations of the object store that failed; that a key is absent is no failure.",
            ("operation", "reason"),
            registry=registry,
        )
        self.object_store_duration = Histogram(
            "demiurge_object_store_duration_seconds",
            "Operations of the object store; of open, until the file is at hand.",
            ("operation",),
            buckets=STORE_SECONDS,
            registry=registry,
        )
        self.index_errors = Counter(
            "demiurge_index_errors_total",
            "Operations of the vector index that failed; refused requests are no failures.",
            ("operation", "reason"),
            registry=registry,
        )
        self._device_memory = _DeviceMemory()
        registry.register(self._device_memory)

    def queue(self, name: str) -> "QueueMetrics":
        """Those of one queue."""
        return QueueMetrics(self, name)

    def store_call(self, operation: str, seconds: float | None, fault: str) -> None:
        """Notes an operation of the object store, as services.runtime.watched tells it."""
        if seconds is not None:
            self.object_store_duration.labels(operation).observe(seconds)
        if fault:
            self.object_store_errors.labels(operation, fault).inc()

    def index_call(self, operation: str, _seconds: float | None, fault: str) -> None:
        """The same of the vector index, whose time is that of the calls which search it."""
        if fault:
            self.index_errors.labels(operation, fault).inc()

    def watch_device(self, read: Callable[[], DeviceMemory]) -> None:
        """From now on each scrape asks `read`, from a thread of its own."""
        self._device_memory.sources.append(read)


class QueueMetrics:
    """What a queue tells of itself."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.waiting = metrics.queue_waiting.labels(name)
        self.running = metrics.queue_running.labels(name)
        self.capacity = metrics.queue_capacity.labels(name)
        self.wait = metrics.queue_wait.labels(name)
        self.refused = metrics.queue_refused.labels(name)


class _DeviceMemory(Collector):
    """Read when scraped: a number that is written at intervals would miss the peaks."""

    def __init__(self) -> None:
        self.sources: list[Callable[[], DeviceMemory]] = []

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The name alone, so that registering asks no device."""
        yield self._family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample a device and kind, though two nouns share the device."""
        family, read = self._family(), dict[tuple[str, str], float]()
        for source in self.sources:
            # A device that cannot be read must not take all other metrics with it.
            with suppress(Exception):
                read |= source()
        for labels, value in read.items():
            family.add_metric(labels, value)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "demiurge_device_memory_bytes",
            "Memory of a GPU; kind is allocated and reserved by this process, or total.",
            labels=("device", "kind"),
        )


class MetricsPort:
    """Serves /metrics from a thread of its own, so that a busy event loop delays no scrape."""

    def __init__(self, metrics: Metrics, settings: RuntimeSettings) -> None:
        """Binds and answers. Raises ConfigurationError for a port that cannot be had."""
        host, port = settings.bind_address, settings.metrics_port or 0
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise ConfigurationError(
                f"DEMIURGE_BIND_ADDRESS, DEMIURGE_METRICS_PORT: cannot listen on {host} port "
                f"{port}: {error.strerror}",
                culprit="DEMIURGE_METRICS_PORT",
            ) from None
        self.port = self._server.server_port
        """The bound port."""

    def close(self) -> None:
        """Answers no more; blocks for at most half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _version() -> str:
    try:
        return version("demiurge")
    except PackageNotFoundError:
        return "unknown"
