"""PredictorService with predictors of other packages beside those of the store."""

import asyncio
import hashlib
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.predictor.v1 import predictor_service_pb2 as pb

from services.errors import (
    BusyError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    WindowTooLongError,
)
from services.runtime.messages import track_from_message
from tests.contract.test_predictor_servicer import (
    MAX_STEPS,
    NUMERIC,
    Service,
    refused,
    request,
    serving,
    trained,
    window,
)
from tests.packages import WALKER, unpacked

BROKEN = "import nothing_of_that_name"
CARELESS = WALKER.replace(".astype(np.float32)", "")
ROUGH = WALKER.replace("checkpoint()", "raise SystemExit(3)")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages bring predictors: three that work, and three that do not."""
    folder = tmp_path / "packages"
    unpacked(folder, "wanderers", {"walk": "wanderers:Walker", "owl": "wanderers:Walker"})
    unpacked(folder, "wanderers-b", {"broken": "wanderers_b:Walker"}, BROKEN)
    unpacked(folder, "wanderers-c", {"careless": "wanderers_c:Walker"}, CARELESS)
    unpacked(folder, "wanderers-r", {"rough": "wanderers_r:Walker"}, ROUGH)
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.startswith("wanderers")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


@pytest.fixture
async def service(tmp_path: Path, packages: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path / "store") as opened:
        yield opened


async def listed(service: Service, size: int = 0) -> list[str]:
    ids: list[str] = []
    token = ""
    while True:
        page = await service.stub.ListPredictors(
            pb.ListPredictorsRequest(page_size=size, page_token=token)
        )
        ids += [predictor.id for predictor in page.predictors]
        token = page.next_page_token
        if not token:
            return ids


async def test_it_continues_windows_as_any_predictor_does(service: Service) -> None:
    seeds = (0, 2**64 - 1)
    warm = [
        await service.stub.PredictDescriptors(request("walk", window(), temperature=1, seed=seed))
        for seed in (*seeds, *seeds)
    ]
    tracks = [track_from_message(answer.tracks[0]) for answer in warm]
    assert tracks[0].feature_names == NUMERIC
    np.testing.assert_array_equal(tracks[0].values, tracks[2].values)
    np.testing.assert_array_equal(tracks[1].values, tracks[3].values)
    assert not np.array_equal(tracks[0].values, tracks[1].values)
    still = await service.stub.PredictDescriptors(request("walk", window(), steps=2))
    last = np.repeat(window().values[-1:], 2, axis=0)
    np.testing.assert_array_equal(track_from_message(still.tracks[0]).values, last)


async def test_it_is_described_by_what_its_answers_depend_on(service: Service) -> None:
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="walk"))
    identity = hashlib.sha256(b"wanderers\x001.2.0\x00wanderers:Walker\x00").hexdigest()
    assert answer.predictor == pb.Predictor(
        id="walk",
        version_id=f"walk@1.2.0-{identity[:8]}",
        architecture="RandomWalk",
        window_frames=4,
        feature_names=NUMERIC,
        sample_rate_hertz=44100,
        hop_length_samples=1024,
        max_steps=MAX_STEPS,
        stochastic=True,
        weights_sha256=identity,
    )


async def test_a_version_answers_as_long_as_it_is_installed(service: Service) -> None:
    described = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="walk"))
    version_id = described.predictor.version_id
    answer = await service.stub.PredictDescriptors(request(version_id, window()))
    assert answer.version_id == version_id
    error = await refused(service.stub.PredictDescriptors(request("walk@1.1.0-00000000", window())))
    assert isinstance(error, NotFoundError)
    assert version_id in error.message


async def test_those_that_work_are_listed_among_the_trained(service: Service) -> None:
    trained(service.models, "sparrow")
    # This one computes what it cannot answer with: known only once it is asked.
    assert await listed(service) == ["careless", "owl", "rough", "sparrow", "walk"]
    assert await listed(service, 2) == ["careless", "owl", "rough", "sparrow", "walk"]


async def test_a_trained_model_goes_before_a_plugin_of_its_id(service: Service) -> None:
    trained(service.models, "owl")
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="owl"))
    assert answer.predictor.version_id == "owl@1"
    assert (await service.stub.PredictDescriptors(request("owl", window()))).version_id == "owl@1"
    assert (await listed(service)).count("owl") == 1


@pytest.mark.parametrize(
    ("name", "package", "reason"),
    [
        ("broken", "wanderers-b 1.2.0", "nothing_of_that_name"),
        ("careless", "wanderers-c 1.2.0", "float64"),
        ("rough", "wanderers-r 1.2.0", "SystemExit: 3"),
    ],
)
async def test_one_that_does_not_work_is_told_by_its_package_and_harms_no_other(
    service: Service, name: str, package: str, reason: str
) -> None:
    for _ in range(2):
        error = await refused(service.stub.PredictDescriptors(request(name, window())))
        assert isinstance(error, ConfigurationError)
        assert error.culprit == package
        assert reason in error.message
    assert (await service.stub.PredictDescriptors(request("walk", window()))).tracks


async def test_an_unknown_one_is_named_with_those_there_are(service: Service) -> None:
    error = await refused(service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wlak")))
    assert isinstance(error, NotFoundError)
    assert "of other packages: broken, careless, owl, rough, walk" in error.message


async def test_what_does_not_fit_is_refused_as_by_any_predictor(service: Service) -> None:
    short = await refused(service.stub.PredictDescriptors(request("walk", window(3))))
    assert isinstance(short, WindowTooLongError)
    assert short.culprit == "owl.wav"
    cold = await refused(
        service.stub.PredictDescriptors(request("walk", window(), temperature=-1.0))
    )
    assert isinstance(cold, InvalidInputError)


async def test_the_device_is_not_waited_for_to_describe_them(service: Service) -> None:
    free, begun = threading.Event(), threading.Event()

    def busy(_: object) -> None:
        begun.set()
        free.wait(60)

    # One at work, and as many behind it as may wait.
    calls = [asyncio.create_task(service.queue.run(busy)) for _ in range(5)]
    await asyncio.to_thread(begun.wait, 60)
    assert isinstance(
        await refused(service.stub.PredictDescriptors(request("walk", window()))), BusyError
    )
    assert "walk" in await listed(service)
    await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="owl"))
    free.set()
    await asyncio.gather(*calls)


async def test_to_list_them_sends_no_model_out_of_memory(tmp_path: Path, packages: Path) -> None:
    huge = WALKER.replace("stochastic = True", "stochastic = True\n    size_bytes = 10**12")
    unpacked(packages, "wanderers-h", {"huge": "wanderers_h:Walker"}, huge)
    async with serving(tmp_path / "store") as service:
        version = trained(service.models, "sparrow")
        await service.stub.PredictDescriptors(request("sparrow", window()))
        # Were it loaded again, it would fail.
        service.store.put(version.weights_key, b"rust")
        assert "huge" in await listed(service)
        await service.stub.PredictDescriptors(request("sparrow", window()))


async def test_one_that_is_not_constructed_in_time_is_left_out_of_the_list_alone(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.predictor.servicer.DESCRIBED_WITHIN_SECONDS", 1.0)
    gate = tmp_path / "gate"
    slow = (
        f"{WALKER}\n    def __init__(self):\n        import pathlib, time\n"
        f"        while not pathlib.Path({str(gate)!r}).exists():\n            time.sleep(0.02)\n"
    )
    unpacked(packages, "wanderers-s", {"slow": "wanderers_s:Walker"}, slow)
    async with serving(tmp_path / "store", plugins="slow,walk") as service:
        assert await listed(service) == ["walk"]
        gate.touch()
        asked = pb.GetPredictorRequest(predictor_id="slow")
        await service.stub.GetPredictor(asked)
        assert await listed(service) == ["slow", "walk"]


async def test_an_operator_may_want_none_of_them(tmp_path: Path, packages: Path) -> None:
    async with serving(tmp_path / "store", plugins="none") as service:
        assert await listed(service) == []
        with pytest.raises(grpc.aio.AioRpcError):
            await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="walk"))
    async with serving(tmp_path / "store", plugins="walk") as service:
        assert await listed(service) == ["walk"]
