from demiurge.synth.v1.synth_service_pb2 import GetModelRequest, ListModelsRequest

from services.runtime.model_store import ModelStore
from tests.conftest import MELGAN, UNAGAN, Stack


def test_a_model_is_listed_with_what_was_found_out_about_it(stack: Stack) -> None:
    models = ModelStore(stack.store)
    listed = stack.call(stack.client.synth.ListModels, ListModelsRequest()).models
    assert all(not model.figures for model in listed)
    figures = {"stft_distance": 0.75, "griffin_lim_stft_distance": 0.5}
    models.describe(models.find("melgan", MELGAN), figures=figures, card="", pictures={})
    listed = stack.call(stack.client.synth.ListModels, ListModelsRequest()).models
    assert {model.id: dict(model.figures) for model in listed} == {MELGAN: figures, UNAGAN: {}}
    one = stack.call(stack.client.synth.GetModel, GetModelRequest(model_id=MELGAN)).model
    assert dict(one.figures) == figures
