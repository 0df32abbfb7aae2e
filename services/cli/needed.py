"""What the records of a store refer to: runs and collections to objects, models to weights."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from demiurge.gateway.v1.gateway_service_pb2 import Run
from demiurge.gateway.v1.run_record_pb2 import RunRecord
from demiurge.query.v1.collection_record_pb2 import (
    AliasRecord,
    CollectionRecord,
    PublicationRecord,
    SourceRecord,
)
from google.protobuf import json_format
from google.protobuf.message import Message

from services.errors import CorruptObjectError
from services.gateway.pipeline import STAGES
from services.gateway.standing import references


@dataclass(frozen=True)
class Need:
    """The object at `key` with this SHA-256, "" for any content, and who needs it."""

    key: str
    sha256: str
    by: str


def is_record(key: str) -> bool:
    """Whether a key is one that only Demiurge itself writes JSON under, to be read by itself."""
    kind = key.partition("/")[0]
    return key.endswith(".json") and (kind in {"models", "markers"} or _record(key) is not None)


def needs(key: str, content: bytes) -> Iterator[Need]:
    """What the record under `key` refers to; CorruptObjectError, naming it, if it tells nothing."""
    kind, _, rest = key.partition("/")
    record = _record(key)
    try:
        if record is None:
            yield from _of_model(key, content) if kind == "models" else _of_marker(content)
        else:
            # What a later version knows beside is no damage.
            json_format.Parse(content, record, ignore_unknown_fields=True)
            by = f"{kind[:-1]} {rest.partition('/')[0]}"
            yield from (Need(each.key, each.sha256, by) for each in references(record))
    except (json_format.ParseError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise CorruptObjectError(f"{key}: {error}", culprit=key) from error


def _record(key: str) -> Message | None:
    """The empty message that the records of runs and collections are read into, by their key."""
    match key.split("/"):
        case ["runs", _, "stages", name]:
            kinds = {f"{number}.json": stage.output for number, stage in enumerate(STAGES)}
        case ["runs", _, name]:
            kinds = {"request.json": RunRecord, "run.json": Run}
        case ["collections", _, "sources", name]:
            kinds = {name: SourceRecord}
        case ["collections", _, name]:
            kinds = {"spec.json": CollectionRecord, "published.json": PublicationRecord}
        case ["aliases", name]:
            kinds = {name: AliasRecord}
        case _:
            return None
    return kinds[name]() if name in kinds else None


def _of_model(key: str, content: bytes) -> Iterator[Need]:
    told = orjson.loads(content)
    if not isinstance(told, dict):
        return
    folder, _, name = key.rpartition("/")
    by = f"model {folder.removeprefix('models/')}"
    if name == "config.json" and "weights_sha256" in told:
        yield Need(f"{folder}/model.safetensors", str(told["weights_sha256"]), by)
    elif name in {"best.json", "last.json"} and "step" in told:
        yield Need(f"{folder}/{told['step']}/config.json", "", by)


def _of_marker(content: bytes) -> Iterator[Need]:
    """Nothing: what a marker tells of may go, and is then made again."""
    orjson.loads(content)
    yield from ()
