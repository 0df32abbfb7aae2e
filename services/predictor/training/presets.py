"""Predictor trainings that are known to work, by name."""

from services.errors import NotFoundError
from services.predictor.training.settings import PredictorTraining

PRESETS: dict[str, PredictorTraining] = {
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
    # Within a minute on one CPU core, from five minutes of sound. An LSTM trained gently goes flat
    # when it hears itself; these steps are large enough that some of its versions do not, and the
    # best is chosen among them.
    "demo-cpu": PredictorTraining(
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


def preset(name: str) -> PredictorTraining:
    """The training of that name; NotFoundError naming the presets there are."""
    if name not in PRESETS:
        raise NotFoundError(
            f"no predictor preset {name!r}; there are {', '.join(PRESETS)}", culprit=name
        )
    return PRESETS[name]
