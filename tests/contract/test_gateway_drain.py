"""A gateway that stops while runs are watched, beside another over the same store."""

import asyncio

import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

from services.cli.composition import Ground, build
from services.errors import UnavailableError
from services.runtime.channels import open_channel
from services.runtime.embedding import embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.server import Server
from services.runtime.settings import NOUNS, RuntimeSettings
from services.runtime.status import remote_errors
from tests.conftest import Stack, spec
from tests.contract.conftest import Repeater, served


async def test_who_watches_is_sent_away_at_once_and_the_run_goes_on_at_another_gateway(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.may_answer.clear()
    wanted = spec(predictor="repeater", database="material", seed=30)
    with served(repeater) as predictor:
        addresses = {f"{noun}_address": stack.address for noun in NOUNS}
        addresses["predictor_address"] = predictor
        runtime = embedded_settings(RuntimeSettings(drain_seconds=600, **addresses))
        ground = Ground(runtime, stack.store, Metrics())
        gateway = Server([build("gateway", ground)], runtime, ground.metrics)
        await gateway.start()
        async with open_channel(f"127.0.0.1:{gateway.port}", runtime) as channel:
            stub = PipelineServiceStub(channel)
            run = (await stub.CreateRun(pb.CreateRunRequest(spec=wanted))).run
            watching = stub.WatchRun(pb.WatchRunRequest(run_id=run.id))
            await watching.read()
            assert await asyncio.to_thread(repeater.asked.wait, 30)
            async with asyncio.timeout(30):
                stopping = asyncio.create_task(gateway.stop())
                with pytest.raises(UnavailableError, match=run.id), remote_errors():
                    async for _ in watching:
                        pass
                await stopping

    repeater.may_answer.set()
    resumed = await asyncio.to_thread(stack.made, wanted)

    assert resumed.id == run.id
    assert resumed.create_time == run.create_time
    assert resumed.state == State.STATE_SUCCEEDED
