"""The settings of predictor training, under the names of the published flags."""

from dataclasses import dataclass, field
from typing import Literal

from services.errors import InvalidInputError
from services.learning.bounds import refuse_beyond_bounds, refuse_unknown
from services.learning.precision import Precision
from services.predictor.config import Deltas
from services.predictor.deltas import REACH
from services.predictor.networks.network import Anchor

ARCHITECTURE_NAMES = (
    "LSTM",
    "LSTMEncoderDecoderModel",
    "TransformerEncoderOnlyModel",
    "TransformerModel",
    "ProbabilisticTransformer",
)
FORECASTING = ("LSTMEncoderDecoderModel", "TransformerModel")
"""Those that give several frames at once."""
ROLLED_OUT = ("LSTM", "TransformerEncoderOnlyModel")
"""Those that can be taught by hearing themselves."""
PROBABILISTIC = "ProbabilisticTransformer"
ValidationFigure = Literal["mse", "nll", "rollout_mse", "free_run"]
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
    "rollout_frames",
)
_AT_LEAST_ZERO = (
    "validation_seed",
    "dim_pos_encoding",
    "warmup_steps",
    "patience",
    "input_noise",
    "gradient_clip",
    "outlier_deviations",
    "validation_windows",
)
# As of `demiurge extract`.
_LEAST = dict.fromkeys(_AT_LEAST_ONE, 1) | {"sr": 8_000, "hop_length": 64}
_BELOW_ONE = ("dropout", "average_decay", "validation_share")


@dataclass(frozen=True)
class PredictorTraining:
    """How a predictor is trained; the defaults are those of the published script."""

    selected_model: str = "LSTM"
    """One of LSTM, LSTMEncoderDecoderModel, TransformerEncoderOnlyModel, TransformerModel and
    ProbabilisticTransformer."""
    window_size: int = 10
    """Frames that the model looks at, the forecast not among them."""
    forecast_size: int = 3
    """Frames that it gives at once; one-step models always give one."""
    sr: int = 44_100
    """Rate that sounds are described at, in hertz; descriptor files have theirs."""
    hop_length: int = 1024
    """Samples from frame to frame at that rate; descriptor files have theirs."""
    hidden_size: int = 100
    """Width of an LSTM's state, and of a ProbabilisticTransformer."""
    num_layers: int = 3
    """Layers of each part."""
    nhead: int = 5
    """Attention heads; they must divide the features and dim_pos_encoding together. In a
    ProbabilisticTransformer, twice as many must divide hidden_size."""
    dim_feedforward: int = 128
    """Width of a transformer's feed-forward layers."""
    dropout: float = 0.1
    """Share dropped in training, by transformers alone."""
    dim_pos_encoding: int = 26
    """Width of the position code beside the features; 0 means none. "LSTM" never has one."""
    num_encoder_layers: int | None = None
    """Encoder layers of a transformer; None means num_layers. The published code ignores this."""
    anchor: Anchor = "none"
    """What a prediction is told as a change from: nothing, as published, the `last` frame known, a
    `linear` prediction that is fitted before training, or, where several frames are forecast, the
    `mean` of the window. A ProbabilisticTransformer has none."""
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
    """Falling to 0 over all steps by `cosine`; `published` is TransformerEncoderOnlyModel's x 0.95
    an epoch, which stops it by epoch 200, and constant for the others."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    epochs: int = 1000
    """Times that all windows are seen, where `steps` does not say how long to train."""
    steps: int | None = None
    """Updates in all; None means as many as all epochs have."""
    patience: int = 0
    """Validations in a row without a better figure after which training ends; 0 means never."""
    rollout_frames: int = 1
    """Frames beyond its window that LSTM and TransformerEncoderOnlyModel tell in training; all but
    the first they tell hearing themselves. 1, as published, is teacher forcing alone."""
    average_decay: float = 0.0
    """Of the moving average of the weights, which is validated and stored; 0 means that there is
    none."""
    input_noise: float = 0.0
    """Deviation of the noise on z-scored inputs; it teaches a model to recover from its own errors
    when it feeds itself."""
    gradient_clip: float = 0.0
    """Largest norm of a gradient; 0 means any."""
    outlier_deviations: float = 5.0
    """Frames with a feature further than this from the mean of their file, in standard deviations,
    count neither in the loss nor in the statistics; 0 means that all frames count."""
    validation_seed: int = 0
    """Where the choice of held-out files comes from, whatever the seed of the training: models of
    several seeds can be compared."""
    validation_share: float = 0.1
    """Share of the windows that is held out, in whole files where there are several."""
    validation_windows: int = 0
    """Held-out windows whose loss is measured at most, evenly apart; 0 means all."""
    validation_figure: ValidationFigure = "mse"
    """What the best step is chosen by: the loss, the error of the 100 frames after a window, or how
    lifelike it goes on by itself."""
    precision: Precision = field(default_factory=Precision)
    """Number formats; the published one is float32."""

    def __post_init__(self) -> None:
        refuse_unknown("selected_model", self.selected_model, ARCHITECTURE_NAMES)
        refuse_beyond_bounds(
            self, positive=("learning_rate",), not_negative=_AT_LEAST_ZERO, below_one=_BELOW_ONE
        )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}: it must be at least {least}", culprit=name
                )
        if self.steps is not None and self.steps < 1:
            raise InvalidInputError(
                f"steps is {self.steps}: it must be at least 1", culprit="steps"
            )
        if self.selected_model == PROBABILISTIC and self.anchor != "none":
            raise InvalidInputError(
                f"anchor is {self.anchor!r}, but a {PROBABILISTIC} has none: choose 'none'",
                culprit="anchor",
            )
        if self.rollout_frames > 1 and self.selected_model not in ROLLED_OUT:
            raise InvalidInputError(
                f"rollout_frames is {self.rollout_frames}, but {self.selected_model} is not taught "
                f"by hearing itself: choose 1, or one of {', '.join(ROLLED_OUT)}",
                culprit="rollout_frames",
            )
        if self.anchor == "mean" and self.selected_model not in FORECASTING:
            raise InvalidInputError(
                f"anchor is 'mean', but {self.selected_model} tells one frame at a time: choose "
                f"'linear', 'last' or 'none', or one of {', '.join(FORECASTING)}",
                culprit="anchor",
            )
        if self.deltas == "computed" and self.window_size < REACH:
            raise InvalidInputError(
                f"window_size is {self.window_size}: deltas look {REACH} frames back, so it must "
                f"be at least {REACH}, or deltas 'predicted'",
                culprit="window_size",
            )
