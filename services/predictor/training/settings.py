"""The settings of predictor training, under the names of the published flags."""

from dataclasses import dataclass
from typing import Literal

from services.errors import InvalidInputError
from services.predictor.config import Deltas
from services.predictor.networks.network import Anchor

ARCHITECTURE_NAMES = (
    "LSTM",
    "LSTMEncoderDecoderModel",
    "TransformerEncoderOnlyModel",
    "TransformerModel",
)
ValidationFigure = Literal["mse", "free_run"]
Schedule = Literal["constant", "cosine", "published"]
_AT_LEAST_ONE = (
    "window_size",
    "forecast_size",
    "hidden_size",
    "num_layers",
    "nhead",
    "dim_feedforward",
    "attention_frames",
    "mixtures",
    "batch_size",
    "epochs",
)
_AT_LEAST_ZERO = ("dim_pos_encoding", "input_noise", "gradient_clip", "outlier_deviations")


@dataclass(frozen=True)
class PredictorTraining:
    """How a predictor is trained; the defaults are those of the published script."""

    selected_model: str = "LSTM"
    """One of ARCHITECTURE_NAMES."""
    window_size: int = 10
    """Frames that the model looks at, the forecast not among them."""
    forecast_size: int = 3
    """Frames that it gives at once; one-step models always give one."""
    hidden_size: int = 100
    """Width of an LSTM's state."""
    num_layers: int = 3
    """Layers of each part."""
    nhead: int = 5
    """Attention heads; they must divide the features and dim_pos_encoding together."""
    dim_feedforward: int = 128
    """Width of a transformer's feed-forward layers."""
    dropout: float = 0.1
    """Share dropped in training, by transformers alone."""
    dim_pos_encoding: int = 26
    """Width of the position code beside the features; 0 means none. "LSTM" never has one."""
    num_encoder_layers: int | None = None
    """Encoder layers of a transformer; None means num_layers. The published code ignores this."""
    anchor: Anchor = "none"
    """What a prediction is told as a change from: nothing, as published, the `last` frame known, or
    the `mean` of the window, which only forecasts of several frames can have."""
    attention_frames: int = 64
    """Frames that each layer of a ProbabilisticTransformer attends to."""
    mixtures: int = 8
    """Components of a ProbabilisticTransformer's mixture."""
    deltas: Deltas = "predicted"
    """`predicted`, as published: deltas are features like others. `computed`: the model knows the
    static coefficients alone, and their deltas are computed from what it predicts."""
    batch_size: int = 16
    """Windows a step."""
    learning_rate: float = 1e-4
    """Of Adam; of AdamW for TransformerEncoderOnlyModel."""
    schedule: Schedule = "constant"
    """Falling to 0 over all epochs by `cosine`; `published` is TransformerEncoderOnlyModel's x 0.95
    an epoch, which stops it by epoch 200, and constant for the others."""
    epochs: int = 1000
    """Times that all windows are seen."""
    input_noise: float = 0.0
    """Deviation of the noise on z-scored inputs; it teaches a model to recover from its own errors
    when it feeds itself."""
    gradient_clip: float = 0.0
    """Largest norm of a gradient; 0 means any."""
    outlier_deviations: float = 5.0
    """Frames with a feature further than this from the mean of their file, in standard deviations,
    count neither in the loss nor in the statistics; 0 means that all frames count."""
    validation_share: float = 0.1
    """Share of the windows that is held out, in whole files where there are several."""
    validation_figure: ValidationFigure = "mse"
    """What the best step is chosen by: the error, or how lifelike it goes on by itself."""

    def __post_init__(self) -> None:
        if self.selected_model not in ARCHITECTURE_NAMES:
            raise InvalidInputError(
                f"selected_model is {self.selected_model!r}, not one of "
                f"{', '.join(ARCHITECTURE_NAMES)}",
                culprit="selected_model",
            )
        for names, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
            for name in names:
                if getattr(self, name) < least:
                    raise InvalidInputError(
                        f"{name} is {getattr(self, name)}; it must be at least {least}",
                        culprit=name,
                    )
        if self.learning_rate <= 0:
            raise InvalidInputError(
                f"learning_rate is {self.learning_rate}; it must be above 0",
                culprit="learning_rate",
            )
        for name in ("dropout", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}; it must be from 0 to below 1", culprit=name
                )
