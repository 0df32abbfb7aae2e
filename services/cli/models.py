"""`demiurge models`: what there is to sing and to predict with."""

from collections.abc import Mapping

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
                rate, hop = f"{model.sample_rate_hertz} Hz", str(model.hop_length_samples)
                judged = chief_figure(model.figures)
                rows.append((family, model.id, str(model.step), model.variant, rate, hop, judged))
            if not page.next_page_token:
                break
            synth.page_token = page.next_page_token
        predictors = ListPredictorsRequest()
        while True:
            found = client.predictor.ListPredictors(predictors)
            for predictor in found.predictors:
                rate, hop = f"{predictor.sample_rate_hertz} Hz", str(predictor.hop_length_samples)
                form = f"{predictor.architecture}, window {predictor.window_frames}"
                # The version of a plug-in is not a step.
                version = predictor.version_id.partition("@")[2] or str(predictor.step)
                judged = chief_figure(predictor.figures)
                rows.append(("predictor", predictor.id, version, form, rate, hop, judged))
            if not found.next_page_token:
                break
            predictors.page_token = found.next_page_token
    if rows:
        header = ("family", "id", "step", "form", "rate", "hop", "judged")
        typer.echo(columns(header, rows))
    else:
        typer.echo("no models yet: `demiurge train` makes them, `demiurge import` takes them in")


# What a model is judged by, what that is measured against, and how the ratio is told.
_CHIEF = (
    ("stft_distance", "griffin_lim_stft_distance", "STFT distance {:.2f} x Griffin-Lim's"),
    ("frechet_distance", "frechet_distance_half_to_half", "Fréchet distance {:.2f} x half to half"),
    *(
        (
            f"error_{ahead}",
            f"linear_autoregression_error_{ahead}",
            f"error at {ahead} {{:.2f}} x linear autoregression's",
        )
        for ahead in (100, 10, 1)
    ),
)


def chief_figure(figures: Mapping[str, float]) -> str:
    """What is most worth knowing of a judged model, below 1 being better; "" if it was not."""
    for name, measure, told in _CHIEF:
        if name in figures and figures.get(measure, 0.0) > 0:
            return told.format(figures[name] / figures[measure])
    return "silent" if figures.get("silent_share") == 1 else ""
