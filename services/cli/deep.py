"""`demiurge doctor --deep`: whether all that is stored and indexed is as it was put there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.cli.finding import Finding
from services.cli.progress import Progress
from services.cli.stored import COLLECTIONS, StoreCheck
from services.errors import DemiurgeError, UnavailableError

if TYPE_CHECKING:
    from demiurge.query.v1.query_service_pb2 import CheckCollectionResponse, Collection

    from services.cli.connection import Client

_NEXT_LINE = "\n" + " " * 28
_REBUILD = "`demiurge doctor --deep --mend` rebuilds it from the store"
_AGAIN = "resume the run that needs it (the same `demiurge run`), or `demiurge index` again"


def look_deep(*, mend: bool) -> list[Finding]:
    """Everything looked at; what can be mended is, if `mend`."""
    from services.cli.connection import connect
    from services.runtime.object_store.opening import open_store, store_is_there
    from services.runtime.settings import RuntimeSettings, load

    runtime = load(RuntimeSettings)
    if not store_is_there(runtime):
        advice = ""
        if runtime.address_of("query"):
            advice = "set DEMIURGE_STORE to the store of the services, or look where they run"
        return [Finding("store", f"{runtime.store}: there is none yet", advice)]
    findings = [Finding("store", runtime.store)]
    with Progress() as progress:
        store = open_store(runtime)
        check = StoreCheck(store, progress, mend=mend)
        findings += check.objects()
        findings += check.references()
        findings += check.runs()
        recorded = list(store.keys(COLLECTIONS))
        damaged = {key.split("/")[1] for key in check.damaged if key.startswith(COLLECTIONS)}
        try:
            with connect("query", lasting=False) as client:
                findings += _collections(client, progress, recorded, damaged, mend=mend)
        except UnavailableError as error:
            advice = "if its files are damaged, move the folder away, and --mend rebuilds the index"
            findings.append(Finding("index", error.message, advice, "damaged"))
    return findings


def _collections(
    client: "Client", progress: Progress, recorded: list[str], damaged: set[str], *, mend: bool
) -> Iterator[Finding]:
    """Every collection that the index or the store knows, compared and, if `mend`, rebuilt."""
    indexed = {collection.id: collection.aliases for collection in _listed(client)}
    begun = {key.split("/")[1] for key in recorded}
    ids = sorted(indexed.keys() | begun)
    for number, collection_id in enumerate(ids, start=1):
        name = ", ".join([collection_id, *indexed.get(collection_id, ())])
        if collection_id in damaged:
            yield _with_damaged_records(client, collection_id, name, mend=mend)
        elif collection_id in indexed or f"{COLLECTIONS}{collection_id}/spec.json" in recorded:
            yield _compared(client, collection_id, name, mend=mend)
        else:
            yield _left_by_a_deletion(client, collection_id, mend=mend)
        progress.update("comparing collections", number, len(ids))
    if not ids:
        yield Finding("collections", "none")


def _listed(client: "Client") -> "Iterator[Collection]":
    from demiurge.query.v1.query_service_pb2 import ListCollectionsRequest

    request = ListCollectionsRequest()
    while True:
        page = client.query.ListCollections(request)
        yield from page.collections
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _with_damaged_records(
    client: "Client", collection_id: str, name: str, *, mend: bool
) -> Finding:
    """A collection of which nobody knows any more what it should hold: it is to be made again."""
    if not mend:
        advice = f"`demiurge doctor --deep --mend` deletes it; then {_AGAIN}"
        return Finding("collection", f"{name}: its records are damaged", advice, "damaged")
    _delete(client, collection_id)
    found = f"{name}: its records were damaged; it was deleted"
    return Finding("collection", found, _AGAIN, "damaged")


def _left_by_a_deletion(client: "Client", collection_id: str, *, mend: bool) -> Finding:
    found = f"{collection_id}: records of it are left, its deletion was cut short"
    if not mend:
        advice = "`demiurge doctor --deep --mend` completes it"
        return Finding("collection", found, advice, "damaged")
    _delete(client, collection_id)
    return Finding("collection", f"{found}; now completed", mark="mended")


def _delete(client: "Client", collection_id: str) -> None:
    from demiurge.query.v1.query_service_pb2 import DeleteCollectionRequest

    client.query.DeleteCollection(DeleteCollectionRequest(collection_id=collection_id))


def _compared(client: "Client", collection_id: str, name: str, *, mend: bool) -> Finding:
    from demiurge.query.v1.query_service_pb2 import CheckCollectionRequest

    from services.runtime.status import remote_errors

    request = CheckCollectionRequest(collection_id=collection_id, mend=mend)
    try:
        with remote_errors():
            answer = client.query.CheckCollection(request)
    except UnavailableError:
        raise
    except DemiurgeError as error:
        return Finding("collection", f"{name}: {error.message}", _AGAIN, "damaged")
    return _told(name, answer, mend=mend)


def _told(name: str, answer: "CheckCollectionResponse", *, mend: bool) -> Finding:
    if not answer.findings:
        return Finding("collection", f"{name}: {answer.expected_points} points")
    found = _NEXT_LINE.join([f"{name}:", *answer.findings])
    if answer.mended:
        return Finding("collection", found, mark="mended")
    # Nothing wrong with the points: their descriptors, perhaps.
    counts = (answer.missing_points, answer.duplicate_points, answer.orphaned_points)
    rebuild = _REBUILD if any(counts) or answer.changed_sources else f"{_REBUILD}; or {_AGAIN}"
    return Finding("collection", found, _AGAIN if mend else rebuild, "damaged")
