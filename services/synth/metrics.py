"""What only synth counts: how many sounds are asked for at once, and how much sound is made."""

from prometheus_client import CollectorRegistry, Counter, Histogram

ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class SynthMetrics:
    """Beside what all services count, in the same registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
