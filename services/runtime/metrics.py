"""Metrics: what every service counts and times, as Prometheus reads it at /metrics.

One `Metrics` a process, with a registry of its own, made by the composition root and handed on; a
noun adds to the registry what only it counts.
Labels come from what the code knows beforehand, never from what callers write: so many series there
are, and no more. https://prometheus.io/docs/practices/naming/
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
UNKNOWN_METHOD = "unknown"

DeviceMemory = Mapping[tuple[str, str], float]
"""Bytes by (device, kind), as ("cuda:0", "allocated")."""


class Metrics:
    """What all services count. To count never fails, and never blocks on who reads."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Info("demiurge_build", "What runs here.", registry=registry)
        build.info({"version": _version()})
        self.ready = Gauge(
            "demiurge_ready",
            "1 if loaded, warm, not draining and not hanging, else 0.",
            registry=registry,
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
        self._device_memory = _DeviceMemory()
        registry.register(self._device_memory)
        self._disks = _DiskFree()
        registry.register(self._disks)

    def queue(self, name: str) -> "QueueMetrics":
        """Those of one queue."""
        return QueueMetrics(self, name)

    def watch_device(self, read: Callable[[], DeviceMemory]) -> None:
        """From now on each scrape asks `read`, from a thread of its own."""
        self._device_memory.sources.append(read)

    def watch_disk(self, folder: Path) -> None:
        """From now on each scrape asks how much room there is where `folder` is."""
        self._disks.folders.append(folder)


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


class _DiskFree(Collector):
    """Read when scraped: a disk may be filled by others."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample a folder that is there."""
        family = GaugeMetricFamily(
            "demiurge_disk_free_bytes",
            "Room left where temporary files wait and where DEMIURGE_HOME is.",
            labels=("folder",),
        )
        for folder in self.folders:
            # A disk that cannot be read must not take all other metrics with it.
            with suppress(OSError):
                family.add_metric((str(folder),), shutil.disk_usage(folder).free)
        yield family


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
