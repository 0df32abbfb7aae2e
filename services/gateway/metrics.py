"""What only the gateway counts: runs, and the stages that they go through."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGE_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class GatewayMetrics:
    """Beside what all services count, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
