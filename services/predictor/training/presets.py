"""Predictor trainings that are known to work, by name and architecture."""

from collections.abc import Mapping
from dataclasses import replace

from services.errors import NotFoundError
from services.predictor.training.settings import PredictorTraining

PUBLISHED: Mapping[str, PredictorTraining] = {
    # The defaults of the published command line.
    "published-script": PredictorTraining(schedule="published"),
    # Those of the published Colab notebook.
    "published-notebook": PredictorTraining(
        window_size=500,
        forecast_size=500,
        hidden_size=200,
        batch_size=64,
        epochs=3000,
        schedule="published",
    ),
}
"""The same for all architectures."""

# Within half a minute on one CPU core, from five minutes of sound.
DEMO = {
    # An LSTM trained gently goes flat when it hears itself; these steps are large enough that some
    # of its versions do not, and the best is chosen among them.
    "LSTM": PredictorTraining(
        window_size=40,
        hidden_size=128,
        num_layers=1,
        batch_size=32,
        learning_rate=1e-2,
        input_noise=0.05,
        gradient_clip=1.0,
        epochs=16,
        validation_figure="free_run",
    ),
}

OWN: Mapping[str, Mapping[str, PredictorTraining]] = {"demo-cpu": DEMO}
"""Those whose values differ from architecture to architecture."""


def preset(name: str, architecture: str | None = None) -> PredictorTraining:
    """The training of that name, for an architecture, the LSTM if none is given.

    Raises NotFoundError naming the presets that there are.
    """
    names = (*PUBLISHED, *OWN)
    if name not in names:
        raise NotFoundError(
            f"no predictor preset {name!r}; there are {', '.join(names)}", culprit=name
        )
    architecture = architecture or PredictorTraining.selected_model
    if name in PUBLISHED:
        return replace(PUBLISHED[name], selected_model=architecture)
    if architecture not in OWN[name]:
        raise NotFoundError(
            f"the predictor preset {name!r} has no values for {architecture!r}; there are "
            f"{', '.join(OWN[name])}",
            culprit=architecture,
        )
    return OWN[name][architecture]
