"""A training by `docker compose run`: its model is in the store, and services know it."""

import pytest
from demiurge.synth.v1.synth_service_pb2 import (
    GetModelRequest,
    ListModelsRequest,
    ModelFamily,
)

from tests.deploy.compose.calling import client
from tests.deploy.conftest import OpenContainers
from tests.deploy.stack import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.slow]
TINY = ("--ngf", "2", "--steps", "2", "--batch-size", "2", "--every", "1")


def test_a_model_that_was_trained_in_a_container_is_there(open_containers: OpenContainers) -> None:
    recordings = str(ROOT / "examples" / "corpus" / "recorded")
    with open_containers(settings={"RECORDINGS_FOLDER": recordings}) as stack:
        stack.run("train", "melgan", "--recorded", "/recordings", *TINY)
        with client(stack) as calls:
            [made] = calls.synth.ListModels(ListModelsRequest(), timeout=60).models
            found = calls.synth.GetModel(GetModelRequest(model_id=made.id), timeout=60).model
        assert found.family == ModelFamily.MODEL_FAMILY_MELGAN
        assert found.step == 2
