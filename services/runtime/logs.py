"""Logs: one JSON object a line with the ids of call and run, or plain lines for a person.

What third parties log through `logging` comes out in the same form. Secrets do not come out.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from services.runtime.settings import RuntimeSettings

REDACTED = "[redacted]"
_SECRET_NAMES = re.compile(
    r"authorization|token|secret|password|credential|api_?key", re.IGNORECASE
)
_SECRET_VALUES = re.compile(r"(?i)\b(bearer\s+)\S+")


def configure_logging(settings: RuntimeSettings, stream: TextIO | None = None) -> None:
    """Sets up the logs of the whole process, to stderr unless told otherwise; once, at start."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # Pretty tracebacks would show local variables, secrets among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redacted,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # At debug these tell of every turn of their loops.
    for name in ("grpc", "asyncio"):
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    # It tells of every try; whoever asked tells of the last one.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _redacted(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {
        name: REDACTED if _SECRET_NAMES.search(name) else _without_bearer(value)
        for name, value in event.items()
    }


def _without_bearer(value: Any) -> Any:
    return _SECRET_VALUES.sub(rf"\1{REDACTED}", value) if isinstance(value, str) else value
