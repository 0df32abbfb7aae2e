"""`demiurge models`: what there is to sing and to predict with."""

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def models() -> None:
    """List the models there are, by id."""
    from demiurge.predictor.v1.predictor_service_pb2 import ListPredictorsRequest
    from demiurge.synth.v1.synth_service_pb2 import ListModelsRequest, ModelFamily

    from services.cli.connection import connect
    from services.cli.listing import columns

    rows = []
    with connect("synth", "predictor") as client:
        synth = ListModelsRequest()
        while True:
            page = client.synth.ListModels(synth)
            for model in page.models:
                family = ModelFamily.Name(model.family).removeprefix("MODEL_FAMILY_").lower()
                rate, hop = model.sample_rate_hertz, model.hop_length_samples
                rows.append(
                    (family, model.id, str(model.step), model.variant, f"{rate} Hz", str(hop))
                )
            if not page.next_page_token:
                break
            synth.page_token = page.next_page_token
        predictors = ListPredictorsRequest()
        while True:
            found = client.predictor.ListPredictors(predictors)
            for predictor in found.predictors:
                rate, hop = predictor.sample_rate_hertz, predictor.hop_length_samples
                form = f"{predictor.architecture}, window {predictor.window_frames}"
                step = str(predictor.step)
                rows.append(("predictor", predictor.id, step, form, f"{rate} Hz", str(hop)))
            if not found.next_page_token:
                break
            predictors.page_token = found.next_page_token
    if rows:
        typer.echo(columns(("family", "id", "step", "form", "rate", "hop"), rows))
    else:
        typer.echo("no models yet: `demiurge train` makes them, `demiurge import` takes them in")
