"""Traces: what a call or a run did, in which service and for how long, for OpenTelemetry.

A caller's trace goes on through us whether spans are told to a collector or not: its id is in the
logs, and in the calls that we make. https://www.w3.org/TR/trace-context/ and
https://opentelemetry.io/docs/specs/otel/trace/ are what this follows.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from services.errors import DemiurgeError
from services.runtime.call import Call, current_call, new_request_id, serving
from services.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.trace import SpanContext

EXPORT_SECONDS = 5.0
EXPORT_EVERY_SECONDS = 2.0
FLUSH_SECONDS = 3.0
"""What a stop leaves to a collector that is slow."""
WAITING_SPANS = 2048
"""More are dropped: a collector that is away costs memory for so many and no time."""
SPANS_AT_ONCE = 512

Attributes = Mapping[str, str | int | float]


class Span:
    """A piece of work as its trace shows it; nothing, where there are no traces."""

    def note(self, name: str, value: str | float) -> None:
        """Sets an attribute."""

    def fail(self, reason: str) -> None:
        """Marks it as failed, for a reason in one word."""


class Tracing:
    """What is traced where no collector is set: nothing."""

    enabled = False

    @contextmanager
    def span(
        self,
        name: str,  # noqa: ARG002 - for the one that traces
        attributes: Attributes,  # noqa: ARG002
        *,
        serves: bool = False,  # noqa: ARG002
        linked_to: str | None = None,  # noqa: ARG002
    ) -> Iterator[Span]:
        """A span from here to the end of the block, within the span of the current call.

        `serves` says that it answers a call. With `linked_to`, a traceparent or "", it begins a
        trace of its own, which only points there.
        """
        yield Span()

    def close(self) -> None:
        """Sends what is left; blocks for at most FLUSH_SECONDS."""


def open_tracing(settings: RuntimeSettings, name: str) -> Tracing:
    """Traces under the service name demiurge-<name>, if DEMIURGE_OTLP_ENDPOINT is set."""
    if not settings.otlp_endpoint:
        return Tracing()
    # A tenth of a second and some megabytes, for those alone who want traces.
    import requests  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    # It tells of every try and every span lost; _Export tells of the first.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    session = requests.Session()
    # Addresses are reached as they are written; a proxy for the web is none for services.
    session.trust_env = False
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces",
        timeout=EXPORT_SECONDS,
        session=session,
    )
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"demiurge-{name}"}), shutdown_on_exit=False
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            _Export(exporter, settings.otlp_endpoint),  # type: ignore[arg-type]
            max_queue_size=WAITING_SPANS,
            schedule_delay_millis=EXPORT_EVERY_SECONDS * 1000,
            max_export_batch_size=SPANS_AT_ONCE,
        )
    )
    return _OpenTelemetry(provider)


class _OpenTelemetry(Tracing):
    enabled = True

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("demiurge")

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Attributes,
        *,
        serves: bool = False,
        linked_to: str | None = None,
    ) -> Iterator[Span]:
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace import (  # noqa: PLC0415
            Link,
            NonRecordingSpan,
            SpanKind,
            set_span_in_context,
        )

        call = current_call() or Call(new_request_id())
        parent = _place(call.traceparent) if linked_to is None else None
        link = _place(linked_to or "")
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context(),
            kind=SpanKind.SERVER if serves else SpanKind.INTERNAL,
            attributes=dict(attributes),
            links=[Link(link)] if link else (),
        )
        place = span.get_span_context()
        traceparent = f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"
        told = _Told(span)
        try:
            with serving(replace(call, traceparent=traceparent)):
                yield told
        except BaseException as error:
            # How a call ended is told by its code. The word alone: messages name files.
            if not serves:
                told.fail(_reason(error))
            raise
        finally:
            span.end()

    def close(self) -> None:
        # The library's own patience is half a minute; what it leaves undone ends with the process.
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)


class _Told(Span):
    def __init__(self, span: "OpenTelemetrySpan") -> None:
        self._span = span

    def note(self, name: str, value: str | float) -> None:
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        self._span.set_status(Status(StatusCode.ERROR, reason))


class _Export:
    """Sends spans, in a thread of the library's; says once that the collector is away."""

    def __init__(self, exporter: "SpanExporter", endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._away = False

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        result = self._exporter.export(spans)
        away = result.name != "SUCCESS"
        if away != self._away:
            self._away = away
            log = structlog.get_logger()
            told = log.warning if away else log.info
            told(
                "traces are lost: the collector takes none" if away else "traces are taken again",
                endpoint=self._endpoint,
            )
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, DemiurgeError) else type(error).__name__


def _place(traceparent: str) -> "SpanContext | None":
    """Where a traceparent points; None for "", and for what is none."""
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    if not traceparent:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    place = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    return place if place.is_valid else None
