"""Whether what a message tells of is still there: markers outlive objects that someone deleted."""

from collections.abc import Iterable, Iterator

from demiurge.audio.v1.audio_pb2 import ObjectRef
from google.protobuf.message import Message

from services.errors import CorruptObjectError, NotFoundError
from services.runtime.object_store.port import ObjectStore


def references(message: Message) -> Iterator[ObjectRef]:
    """All object references in `message`, however deep."""
    if isinstance(message, ObjectRef):
        yield message
        return
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.GetOptions().map_entry:
            # A map goes through its keys; its values may be plain numbers.
            parts = value.values() if kind.fields_by_name["value"].message_type else ()
        else:
            parts = [value] if isinstance(value, Message) else value
        for part in parts:
            yield from references(part)


def objects_stand(
    store: ObjectStore, references: Iterable[ObjectRef], *, read: bool = False
) -> bool:
    """Whether the store has every object that is referred to, with that content; blocking.

    Its word is taken for the content unless all of it is to be `read`.
    """
    wanted = list(references)
    keys = [reference.key for reference in wanted]
    try:
        found = map(store.verify, keys) if read else store.stats(keys)
        return all(
            there is not None and there.sha256 == reference.sha256
            for there, reference in zip(found, wanted, strict=True)
        )
    except (NotFoundError, CorruptObjectError):
        return False
