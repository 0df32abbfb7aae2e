"""What a stage has to work with: the request, the snapshot, what earlier stages left, the peers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from demiurge.gateway.v1.gateway_service_pb2 import RunSpec
from demiurge.gateway.v1.run_record_pb2 import Snapshot
from google.protobuf.message import Message

from services.gateway.patience import Patience
from services.gateway.peers import Peers
from services.gateway.standing import objects_stand, references
from services.runtime.object_store.port import ObjectStore

Output = TypeVar("Output", bound=Message)

# Objects looked up in one go of a thread: between them a cancelled run stops.
LOOKED_UP_AT_ONCE = 32


class Advance(Protocol):
    """Told how many items of a stage are done."""

    def __call__(self, completed: int, total: int, /) -> None:
        """Takes the counts."""


@dataclass
class RunContext:
    """One run at work."""

    run_id: str
    spec: RunSpec
    snapshot: Snapshot
    peers: Peers
    store: ObjectStore
    patience: Patience
    concurrency: int
    outputs: dict[type[Message], Message] = field(default_factory=dict)

    def output(self, kind: type[Output]) -> Output:
        """What an earlier stage left, by its type."""
        output = self.outputs[kind]
        assert isinstance(output, kind)  # noqa: S101 - for the type checker
        return output


async def output_stands(context: RunContext, output: Message) -> bool:
    """Whether all objects that a stage left are still there."""
    left = list(references(output))
    for start in range(0, len(left), LOOKED_UP_AT_ONCE):
        some = left[start : start + LOOKED_UP_AT_ONCE]
        if not await context.patience.stored(partial(objects_stand, context.store, some)):
            return False
    return True


async def piece_stands(context: RunContext, output: Message) -> bool:
    """Whether the piece is still there and sound: whoever asks for it again gets it, or another."""
    read = partial(objects_stand, context.store, list(references(output)), read=True)
    return await context.patience.stored(read)


@dataclass(frozen=True)
class Stage:
    """A named step: what it leaves, and how."""

    name: str
    output: type[Message]
    run: Callable[[RunContext, Advance], Awaitable[Message]]
    items: Callable[[RunContext], int]
    """How many items it had, once its output is there."""
    stands: Callable[[RunContext, Message], Awaitable[bool]] = output_stands
    """Whether what its marker tells of is still there; if not, it is done again."""
