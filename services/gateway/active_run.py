"""A run at work in this process, and those who watch it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from demiurge.gateway.v1.gateway_service_pb2 import Run

from services.gateway.ends import ENDED
from services.gateway.run_store import now


@dataclass(eq=False)
class ActiveRun:
    """`work` makes the piece, `beat` tells other gateways of it, `end` records how it went."""

    run: Run
    """How it stands, and once the end is recorded, how it ended."""
    ended: Run | None = None
    """How it ended, perhaps not recorded yet."""
    work: "asyncio.Task[None]" = field(init=False)
    beat: "asyncio.Task[None]" = field(init=False)
    end: "asyncio.Task[None]" = field(init=False)
    watchers: set[asyncio.Event] = field(default_factory=set)

    def changed(self) -> None:
        """Dates the change, and tells everyone who watches."""
        self.run.update_time.CopyFrom(now())
        self.tell()

    def tell(self) -> None:
        """Wakes everyone who watches."""
        for watcher in self.watchers:
            watcher.set()

    @property
    def stopping(self) -> bool:
        """Whether someone cancelled it."""
        return self.work.cancelling() > 0 or self.work.cancelled()

    async def states(self) -> AsyncIterator[Run]:
        """The run now, whenever watchers are told, and last as it ended."""
        event = asyncio.Event()
        self.watchers.add(event)
        try:
            while True:
                event.clear()
                shown = self.run
                yield shown
                # Not self.run: it may have ended while this was on its way.
                if shown.state in ENDED:
                    return
                await event.wait()
        finally:
            self.watchers.discard(event)
