"""How long the stages of runs take, and how they end."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.gateway.metrics import GatewayMetrics
from services.runtime.tracing import Tracing


@dataclass
class Timing:
    """`outcome` is succeeded, failed or cancelled; kept, where the stage's result was there."""

    outcome: str = "succeeded"


@contextmanager
def timed(stage: str, run_id: str, metrics: GatewayMetrics, tracing: Tracing) -> Iterator[Timing]:
    """Times and traces a stage from here to the end of the block, however that comes."""
    timing, begin = Timing(), time.monotonic()
    attributes = {"demiurge.run_id": run_id, "demiurge.stage": stage}
    with tracing.span(f"stage {stage}", attributes) as span:
        try:
            yield timing
        except asyncio.CancelledError:
            timing.outcome = "cancelled"
            raise
        except Exception:
            timing.outcome = "failed"
            raise
        finally:
            seconds = time.monotonic() - begin
            metrics.stage_duration.labels(stage, timing.outcome).observe(seconds)
            span.note("demiurge.outcome", timing.outcome)
