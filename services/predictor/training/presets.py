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

# What was found to work for squared error. The statics alone are told, as what is to be added to a
# linear prediction, and the version is kept whose continuations are nearest to held-out files.
_OURS = PredictorTraining(
    deltas="computed",
    anchor="linear",
    num_layers=1,
    nhead=2,
    dim_pos_encoding=19,
    batch_size=32,
    learning_rate=5e-4,
    schedule="cosine",
    warmup_steps=100,
    gradient_clip=1.0,
    average_decay=0.995,
    validation_windows=128,
    validation_figure="rollout_mse",
)

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
    "LSTMEncoderDecoderModel": replace(
        _OURS,
        selected_model="LSTMEncoderDecoderModel",
        window_size=64,
        forecast_size=50,
        hidden_size=64,
        dim_pos_encoding=0,
        steps=400,
    ),
    "TransformerEncoderOnlyModel": replace(
        _OURS,
        selected_model="TransformerEncoderOnlyModel",
        window_size=32,
        dim_feedforward=64,
        rollout_frames=8,
        batch_size=16,
        steps=400,
    ),
    "TransformerModel": replace(
        _OURS,
        selected_model="TransformerModel",
        window_size=64,
        forecast_size=50,
        dim_feedforward=64,
        batch_size=16,
        steps=400,
    ),
    "ProbabilisticTransformer": replace(
        _OURS,
        selected_model="ProbabilisticTransformer",
        anchor="none",
        window_size=100,
        hidden_size=64,
        num_layers=2,
        nhead=2,
        dim_feedforward=256,
        attention_frames=32,
        mixtures=6,
        batch_size=8,
        learning_rate=3e-3,
        warmup_steps=30,
        steps=300,
        average_decay=0.0,
        input_noise=0.1,
        validation_figure="nll",
    ),
}

# Within some minutes on one CPU core, from two hours of music.
STANDARD = {
    "LSTM": replace(
        _OURS,
        window_size=48,
        hidden_size=64,
        rollout_frames=64,
        steps=4000,
    ),
    "LSTMEncoderDecoderModel": replace(
        _OURS,
        selected_model="LSTMEncoderDecoderModel",
        window_size=256,
        forecast_size=100,
        hidden_size=64,
        # With position codes, what it adds trembles from frame to frame, and so do the deltas.
        dim_pos_encoding=0,
        steps=3000,
        patience=4,
    ),
    "TransformerEncoderOnlyModel": replace(
        _OURS,
        selected_model="TransformerEncoderOnlyModel",
        window_size=32,
        dim_feedforward=64,
        rollout_frames=16,
        batch_size=16,
        steps=4000,
    ),
    "TransformerModel": replace(
        _OURS,
        selected_model="TransformerModel",
        window_size=256,
        forecast_size=100,
        dim_feedforward=64,
        batch_size=16,
        steps=3000,
        patience=4,
    ),
    "ProbabilisticTransformer": replace(
        _OURS,
        selected_model="ProbabilisticTransformer",
        anchor="none",
        window_size=500,
        hidden_size=128,
        num_layers=4,
        nhead=4,
        dim_feedforward=512,
        dropout=0.0,
        attention_frames=128,
        mixtures=8,
        batch_size=8,
        learning_rate=2e-3,
        warmup_steps=50,
        steps=700,
        average_decay=0.0,
        # Decides how far drawn sequences swing: with none, their slow movements had twice the power
        # of real ones, with 0.3 two thirds of it.
        input_noise=0.1,
        validation_figure="nll",
    ),
}

OWN: Mapping[str, Mapping[str, PredictorTraining]] = {"demo-cpu": DEMO, "standard": STANDARD}
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
            f"there is no predictor {architecture!r} (--selected-model); there are "
            f"{', '.join(OWN[name])}",
            culprit=architecture,
        )
    return OWN[name][architecture]
