"""Qdrant's own local mode behind its gRPC contract: what an adapter sends is what a server reads.

It answers as the client's authors say a server does, wholly in memory, slowly, and without what a
server does for speed: payload indexes, graphs and optimizers. What is asked of it there, it keeps:
it answers the same without.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import grpc
from qdrant_client import grpc as q
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.local.qdrant_local import QdrantLocal


class Qdrant:
    """`with Qdrant() as server`: listening on loopback at `url` and `grpc_port`.

    Asks for `api_key`, if given; speaks TLS, if `certificate` (key and chain, PEM) is. `calls`
    counts the calls by method, `most_at_once` those under way together. Methods in `failing` fail;
    all do once `calls_left` are through, the first of these after its work if `last_is_done`.
    `statuses` are what collections are said to be in, one description after the other, before they
    are green. The method that `hanging` names, or "all", is not answered. `local` of a server
    that stopped is what the next one begins with.

    `searches` are (exact, breadth) as each query asked, `writes` (method, waited for, ordering) of
    every change of points, and `indexing_from` the KiB at which each collection was last told to
    index vectors, 0 for never.
    """

    def __init__(
        self,
        api_key: str = "",
        certificate: tuple[bytes, bytes] | None = None,
        port: int = 0,
        local: QdrantLocal | None = None,
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes_answered = 0
        self.hanging = ""
        self.searches: list[tuple[bool, int]] = []
        self.writes: set[tuple[str, bool, str]] = set()
        self.indexing_from: dict[str, int] = {}
        self.statuses: list[models.CollectionStatus] = []
        self.optimizer_error = ""
        self.calls_left: int | None = None
        self.last_is_done = False
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self.failing: dict[str, tuple[grpc.StatusCode, str]] = {}
        self._key = api_key
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.local = local or QdrantLocal(":memory:")
        self._server = grpc.server(ThreadPoolExecutor(16))
        methods = _Methods(self)
        collections, points = q.CollectionsServicer(), q.PointsServicer()
        for servicer, works in ((collections, methods.collections), (points, methods.points)):
            for name, work in works.items():
                called = f"{type(servicer).__name__.removesuffix('Servicer')}.{name}"
                setattr(servicer, name, partial(self._answer, called, work))
        q.add_CollectionsServicer_to_server(collections, self._server)
        q.add_PointsServicer_to_server(points, self._server)
        scheme = "https" if certificate else "http"
        if certificate:
            credentials = grpc.ssl_server_credentials([certificate])
            self.grpc_port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        else:
            self.grpc_port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        # The port of this address is HTTP's, which nobody uses.
        self.url = f"{scheme}://127.0.0.1:6333"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Hangs up on everybody."""
        self._stopped.set()
        self._server.stop(0).wait()

    def _answer(
        self, method: str, work: "_Method", request: Any, context: grpc.ServicerContext
    ) -> Any:
        """One call after the other, since the local mode is made for one thread."""
        sent = dict(context.invocation_metadata())
        if self._key and sent.get("api-key") != self._key:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT")
        while self.hanging in {method, "all"} and not self._stopped.wait(0.05):
            pass
        self._at_once[method] += 1
        self.most_at_once[method] = max(self.most_at_once[method], self._at_once[method])
        try:
            with self._lock:
                return self._answered(method, work, request, context)
        finally:
            self._at_once[method] -= 1

    def _answered(
        self, method: str, work: "_Method", request: Any, context: grpc.ServicerContext
    ) -> Any:
        self.calls[method] += 1
        if method in self.failing:
            context.abort(*self.failing[method])
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                if self.last_is_done and self.calls_left == -1:
                    work(request)
                context.abort(grpc.StatusCode.ABORTED, "the server went away")
        try:
            answer = work(request)
        except ValueError as error:
            context.abort(_code(str(error)), str(error))
        self.bytes_answered += answer.ByteSize()
        return answer


def _code(said: str) -> grpc.StatusCode:
    if "not found" in said:
        return grpc.StatusCode.NOT_FOUND
    if "already exists" in said:
        return grpc.StatusCode.ALREADY_EXISTS
    return grpc.StatusCode.INVALID_ARGUMENT


_Method = Callable[[Any], Any]


class _Methods:
    """The methods of the contract that are answered, each from a request to a response."""

    def __init__(self, server: Qdrant) -> None:
        self._server = server
        self._local = server.local
        self.collections: dict[str, _Method] = {
            "Get": self._get,
            "List": self._list,
            "Create": self._create,
            "Update": self._update,
            "Delete": self._delete,
            "UpdateAliases": self._update_aliases,
            "ListAliases": self._list_aliases,
        }
        self.points: dict[str, _Method] = {
            "Upsert": self._upsert,
            "Delete": self._delete_points,
            "Get": self._get_points,
            "CreateFieldIndex": self._create_field_index,
            "Scroll": self._scroll,
            "Count": self._count,
            "Facet": self._facet,
            "QueryBatch": self._query_batch,
        }

    def _get(self, request: Any) -> Any:
        info = self._local.get_collection(request.collection_name)
        info.status = self._server.statuses.pop(0) if self._server.statuses else info.status
        if self._server.optimizer_error:
            error = self._server.optimizer_error
            info.optimizer_status = models.OptimizersStatusOneOf1(error=error)
        return q.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def _list(self, _: Any) -> Any:
        found = self._local.get_collections().collections
        described = [RestToGrpc.convert_collection_description(one) for one in found]
        return q.ListCollectionsResponse(collections=described)

    def _create(self, request: Any) -> Any:
        done = self._local.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        self._optimize(request)
        return q.CollectionOperationResponse(result=done)

    def _update(self, request: Any) -> Any:
        metadata = GrpcToRest.convert_payload(request.metadata) or None
        done = self._local.update_collection(request.collection_name, metadata=metadata)
        self._optimize(request)
        return q.CollectionOperationResponse(result=done)

    def _optimize(self, request: Any) -> None:
        if request.optimizers_config.HasField("indexing_threshold"):
            threshold = request.optimizers_config.indexing_threshold
            self._server.indexing_from[request.collection_name] = threshold

    def _write(self, method: str, request: Any) -> None:
        ordering = q.WriteOrderingType.Name(request.ordering.type)
        self._server.writes.add((method, request.wait, ordering))

    def _delete(self, request: Any) -> Any:
        done = self._local.delete_collection(request.collection_name)
        return q.CollectionOperationResponse(result=done)

    def _update_aliases(self, request: Any) -> Any:
        actions = [GrpcToRest.convert_alias_operations(one) for one in request.actions]
        return q.CollectionOperationResponse(result=self._local.update_collection_aliases(actions))

    def _list_aliases(self, _: Any) -> Any:
        found = self._local.get_aliases().aliases
        return q.ListAliasesResponse(
            aliases=[RestToGrpc.convert_alias_description(one) for one in found]
        )

    def _upsert(self, request: Any) -> Any:
        self._write("upsert", request)
        mode = request.update_mode if request.HasField("update_mode") else None
        done = self._local.upsert(
            request.collection_name,
            [GrpcToRest.convert_point_struct(point) for point in request.points],
            update_mode=None if mode is None else GrpcToRest.convert_update_mode(mode),
        )
        return _updated(done)

    def _delete_points(self, request: Any) -> Any:
        self._write("delete", request)
        chosen = GrpcToRest.convert_points_selector(request.points)
        return _updated(self._local.delete(request.collection_name, chosen))

    def _get_points(self, request: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(one) for one in request.ids]
        found = self._local.retrieve(request.collection_name, ids)
        return q.GetResponse(result=[RestToGrpc.convert_record(one) for one in found])

    def _create_field_index(self, request: Any) -> Any:
        # The local mode has none, and warns of it; only what is asked for is checked.
        assert request.field_type in {
            q.FieldType.FieldTypeInteger,
            q.FieldType.FieldTypeKeyword,
        }
        self._local.get_collection(request.collection_name)
        return _updated(models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED))

    def _scroll(self, request: Any) -> Any:
        found, following = self._local.scroll(
            request.collection_name,
            scroll_filter=_chosen(request),
            limit=request.limit,
            offset=(
                GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
            ),
            with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return q.ScrollResponse(
            result=[RestToGrpc.convert_record(one) for one in found],
            next_page_offset=(
                None if following is None else RestToGrpc.convert_extended_point_id(following)
            ),
        )

    def _count(self, request: Any) -> Any:
        found = self._local.count(request.collection_name, count_filter=_chosen(request))
        return q.CountResponse(result=RestToGrpc.convert_count_result(found))

    def _facet(self, request: Any) -> Any:
        found = self._local.facet(request.collection_name, request.key, limit=request.limit)
        hits = [RestToGrpc.convert_facet_value_hit(one) for one in found.hits]
        return q.FacetResponse(hits=hits)

    def _query_batch(self, request: Any) -> Any:
        queries = [GrpcToRest.convert_query_points(one) for one in request.query_points]
        for query in queries:
            asked = query.params or models.SearchParams()
            self._server.searches.append((bool(asked.exact), asked.hnsw_ef or 0))
            # The local mode looks at every point, and warns that it cannot do otherwise.
            query.params = None
        answers = self._local.query_batch_points(request.collection_name, queries)
        scored = [[RestToGrpc.convert_scored_point(one) for one in a.points] for a in answers]
        return q.QueryBatchResponse(result=[q.BatchResult(result=points) for points in scored])


def _chosen(request: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


def _updated(result: models.UpdateResult) -> Any:
    return q.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))
