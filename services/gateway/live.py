"""Which gateway is at work on a run: runs/<run>/live.json, written again each second.

A lease that need not be strict: stages are pure and writes idempotent, so that two gateways at
work on one run only waste time.
"""

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from demiurge.gateway.v1.gateway_service_pb2 import Run
from demiurge.gateway.v1.run_record_pb2 import LiveRun

from services.errors import CorruptObjectError, NotFoundError
from services.gateway.run_store import RunStore, now

BEAT_SECONDS = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Sighting:
    """A beat, when it was first seen (monotonic), and how old it was then at most, in seconds."""

    beat: bytes
    seen: float
    age: float


class LiveRuns:
    """The beats of all gateways over one store; blocking, from any thread.

    A beat older than `lease_seconds` means that its gateway is no more.
    """

    def __init__(self, records: RunStore, *, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._records = records
        self._gateway_id = f"{_place()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._own: set[str] = set()
        self._sightings: dict[str, Sighting] = {}

    def claim(self, run: Run) -> None:
        """The first beat: from here on this gateway is at work on the run."""
        self._own.add(run.id)
        self.beat(run)

    def beat(self, run: Run) -> None:
        """Tells all gateways how the run stands."""
        self._records.save_live(LiveRun(run=run, gateway_id=self._gateway_id, beat_time=now()))

    def release(self, run_id: str) -> None:
        """This gateway is no longer at work on the run, however the store takes it."""
        self._own.discard(run_id)
        # Another gateway may be at work on it, too.
        live = self._read(run_id)
        if live is None or live.gateway_id == self._gateway_id:
            self._records.delete_live(run_id)

    def at_work(self, run_id: str) -> Run | None:
        """The run as the gateway that is at work on it told last; None if none is."""
        live = self._read(run_id)
        if live is None:
            self._sightings.pop(run_id, None)
            return None
        if live.gateway_id == self._gateway_id:
            return live.run if run_id in self._own else None
        return live.run if self._beats(run_id, live) else None

    def _read(self, run_id: str) -> LiveRun | None:
        try:
            return self._records.live(run_id)
        except (NotFoundError, CorruptObjectError):
            return None

    def _beats(self, run_id: str, live: LiveRun) -> bool:
        if _has_died(live.gateway_id):
            return False
        beat = live.gateway_id.encode() + live.beat_time.SerializeToString()
        last, moment = self._sightings.get(run_id), time.monotonic()
        if last is None or last.beat != beat:
            age = max(time.time() - live.beat_time.ToNanoseconds() / 1e9, 0.0)
            if last:
                # Clocks differ; but it cannot be older than the last look at another one.
                age = min(age, moment - last.seen)
            last = self._sightings[run_id] = Sighting(beat, moment, age)
        return last.age + moment - last.seen < self.lease_seconds


def _place() -> str:
    """Where this process's number is its own: host, start of its kernel, and PID namespace.

    Containers may share all but the last; without it no other process is known to be gone.
    """
    try:
        start = BOOT_ID.read_text().strip()
        namespace = PID_NAMESPACE.stat().st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{start}/{namespace}"


def _has_died(gateway_id: str) -> bool:
    """Whether a gateway is known for certain to be gone, so that nobody waits for its beat."""
    place, _, rest = gateway_id.partition(":")
    process = rest.partition(":")[0]
    if "/" not in place or place != _place() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
