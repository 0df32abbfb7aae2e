"""What a server says of itself: health, the list of predictors, and their descriptions."""

import time

import grpc
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.checks.outcome import Broken, NotApplicable
from services.cli.checks.subject import Subject, code_of, said, told_by
from services.cli.options import MAX_STEPS
from services.runtime.health import READINESS

SERVICE = "demiurge.predictor.v1.PredictorService"
HEALTH_NAMES = ("", READINESS, SERVICE)
MOST_LISTED = 1000


def health(subject: Subject) -> None:
    """grpc.health.v1 says SERVING of the server (""), of "readiness" and of the service by name."""
    for name in HEALTH_NAMES:
        asked = f"the health of {name!r}"
        status = health_of(subject, name)
        if status != health_pb2.HealthCheckResponse.SERVING:
            raise Broken(asked, health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def health_of(subject: Subject, name: str) -> int:
    """The status of that name; Broken if there is none in time."""
    stub = health_pb2_grpc.HealthStub(subject.channel)
    request = health_pb2.HealthCheckRequest(service=name)
    with told_by(f"the health of {name!r}"):
        return int(stub.Check(request, timeout=subject.limits.free_seconds).status)


def description(subject: Subject) -> None:
    """A predictor has id, version, features without twins, rate, hop, limits and a hash."""
    told = subject.described
    names = list(told.feature_names)
    demands = {
        "id is empty": bool(told.id),
        "version_id is empty": bool(told.version_id),
        "weights_sha256 is empty": bool(told.weights_sha256),
        "feature_names are none": bool(names),
        "feature_names hold one twice, or an empty one": len({*names} - {""}) == len(names),
        f"window_frames is {told.window_frames}": told.window_frames >= 1,
        f"window_frames is {told.window_frames}, more than fit inline": (
            told.window_frames <= subject.frames_inline
        ),
        f"sample_rate_hertz is {told.sample_rate_hertz}": 0 < told.sample_rate_hertz <= 192_000,
        f"hop_length_samples is {told.hop_length_samples}": 0 < told.hop_length_samples <= 65_536,
        f"max_steps is {told.max_steps}": 1 <= told.max_steps <= MAX_STEPS,
    }
    wrong = [problem for problem, met in demands.items() if not met]
    if wrong:
        raise Broken(f"the description of {told.id!r}", "; ".join(wrong))


def get_as_listed(subject: Subject) -> None:
    """GetPredictor tells of an id, and of its version_id, what ListPredictors tells."""
    for name in (subject.described.id, subject.described.version_id):
        asked = f"GetPredictor of {name!r}"
        with told_by(asked):
            told = subject.stub.GetPredictor(
                pb.GetPredictorRequest(predictor_id=name), timeout=subject.limits.answer_seconds
            ).predictor
        if told != subject.described:
            fields = type(told).DESCRIPTOR.fields
            other = [
                field.name
                for field in fields
                if getattr(told, field.name) != getattr(subject.described, field.name)
            ]
            raise Broken(asked, f"{', '.join(other)} differ from what is listed")


def list_order(subject: Subject) -> None:
    """ListPredictors lists each predictor once, by id."""
    ids = [predictor.id for predictor in subject.listed]
    if ids != sorted(set(ids)):
        raise Broken("ListPredictors", f"the ids {ids}")


def list_pages(subject: Subject) -> None:
    """Pages hold at most page_size predictors, and next_page_token leads to the rest of them."""
    ids = [predictor.id for predictor in subject.listed]
    if len(ids) < 2:
        raise NotApplicable("one predictor is served, which fits on any page")
    size = (len(ids) + 1) // 2
    asked, token, found = f"ListPredictors by pages of {size}", "", list[str]()
    while token or not found:
        request = pb.ListPredictorsRequest(page_size=size, page_token=token)
        with told_by(asked):
            page = subject.stub.ListPredictors(request, timeout=subject.limits.answer_seconds)
        if len(page.predictors) > size:
            raise Broken(asked, f"a page of {len(page.predictors)}")
        found += [predictor.id for predictor in page.predictors]
        token = page.next_page_token
        if not page.predictors or len(found) > len(ids):
            break
    if found != ids:
        raise Broken(asked, f"the ids {found}; all at once they are {ids}")


def list_page_size(subject: Subject) -> None:
    """A page_size below 0 or above 1000 is refused by INVALID_ARGUMENT."""
    for size in (-1, MOST_LISTED + 1):
        request = pb.ListPredictorsRequest(page_size=size)
        subject.refused(subject.stub.ListPredictors, request, f"a page_size of {size}")


def listed(channel: grpc.Channel, seconds: float) -> list[pb.Predictor]:
    """All predictors of a server, on as few pages as it takes.

    Raises Broken if the list fails, or has no end, within so many seconds.
    """
    stub, found, token = PredictorServiceStub(channel), list[pb.Predictor](), ""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        request = pb.ListPredictorsRequest(page_size=MOST_LISTED, page_token=token)
        try:
            page = stub.ListPredictors(request, timeout=left)
        except grpc.RpcError as error:
            if token and code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            raise Broken("ListPredictors", said(error)) from None
        found += page.predictors
        if not page.next_page_token:
            return found
        token = page.next_page_token
    raise Broken("ListPredictors", f"no last page in {seconds:g} s")
