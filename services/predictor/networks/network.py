"""What all networks have in common: windows in, continuations out.

Networks know z-scored frames alone, in tensors of shape (B, F, E): batch, frames, features.
The forms of the four published ones follow https://github.com/buganart/descriptor-transformer.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from services.errors import InvalidInputError
from services.predictor.port import Checkpoint, never_stop

Rollout = Literal["sliding", "published"]
Mask = Literal["causal", "published"]
Anchor = Literal["none", "last", "mean", "linear"]
FittingBatches = Iterable[tuple[Tensor, Tensor]]
"""Frames and counts, as `Network.loss` takes them; they can be walked over more than once."""


@dataclass(frozen=True)
class Chance:
    """How a stochastic network draws; the others do not ask."""

    seeds: tuple[int, ...] = (0,)
    """One for each sequence of the batch, so that it is the same alone and among others."""
    temperature: float = 0.0
    """1 draws as often as was learned; 0 takes the mean of the likeliest component, frame by
    frame."""


MOST_LIKELY = Chance()


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a network; each architecture reads the ones it has."""

    feature_count: int
    """Features of a frame."""
    hidden_size: int
    """Width of an LSTM's state, and of a ProbabilisticTransformer."""
    num_layers: int
    """Layers of each part."""
    nhead: int = 1
    """Attention heads; they share out features + position code evenly, in a
    ProbabilisticTransformer hidden_size, of which 2 x nhead is a divisor."""
    dim_feedforward: int = 1
    """Width of a transformer's feed-forward layers."""
    dropout: float = 0.0
    """Share dropped in training."""
    dim_pos_encoding: int = 0
    """Width of the position code beside the features; 0 means none."""
    num_encoder_layers: int | None = None
    """Encoder layers of a transformer, where they should differ from num_layers."""
    mask: Mask = "causal"
    """What TransformerEncoderOnlyModel attends to; `published` is no mask, see there."""
    anchor: Anchor = "none"
    """What a prediction is told as a change from: see `anchor.py`."""
    attention_frames: int = 64
    """Frames that each layer of a ProbabilisticTransformer attends to."""
    mixtures: int = 8
    """Components of a ProbabilisticTransformer's mixture."""

    @property
    def model_width(self) -> int:
        """Features and position code."""
        return self.feature_count + self.dim_pos_encoding

    @property
    def encoder_layers(self) -> int:
        """Layers of a transformer's encoder."""
        return self.num_encoder_layers or self.num_layers

    def encoder(self) -> nn.TransformerEncoder:
        """A transformer encoder of these sizes, batch first, without a final norm."""
        self.check_heads()
        layer = nn.TransformerEncoderLayer(
            self.model_width, self.nhead, self.dim_feedforward, self.dropout, batch_first=True
        )
        return nn.TransformerEncoder(layer, self.encoder_layers, enable_nested_tensor=False)

    def check_heads(self) -> None:
        """Raises InvalidInputError, naming nhead, if the heads cannot share the width evenly."""
        if self.model_width % self.nhead:
            raise InvalidInputError(
                f"nhead is {self.nhead}, which does not divide {self.feature_count} features + "
                f"{self.dim_pos_encoding} of position code",
                culprit="nhead",
            )


class Network(nn.Module, ABC):
    """A network that continues z-scored frames."""

    stochastic = False
    """Whether it draws at random."""
    loss_name = "mse"
    """What its loss is called in logs."""

    @staticmethod
    @abstractmethod
    def frames_ahead(forecast_frames: int) -> int:
        """How many frames beyond its window one training sequence holds."""

    @staticmethod
    def frames_told(window_frames: int, frames_ahead: int) -> int:
        """How many of the last frames of a training sequence its loss is of.

        All but the first, before which nothing was heard.
        """
        return window_frames + frames_ahead - 1

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Sets what is fitted to the training part before its first step: nothing unless it says.

        `batches` give (frames, counts), (B, window + frames ahead, E) and (B, window + frames
        ahead).
        """

    @abstractmethod
    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        """What it predicts for the last k frames of (B, window + frames ahead, E): (B, k, E)."""

    def loss(self, frames: Tensor, heard: Tensor, counts: Tensor, window_frames: int) -> Tensor:
        """What training makes small: the mean squared error of what is `taught`, a 0-d tensor.

        `frames` are (B, window + frames ahead, E), `heard` the same as the network hears them,
        maybe with noise; `counts` (B, window + frames ahead) is 0 where a frame is an outlier.
        """
        told = self.taught(heard, window_frames)
        counts = counts[:, -told.shape[1] :]
        errors = (told - frames[:, -told.shape[1] :]).square().mean(dim=2)
        return (errors * counts).sum() / counts.sum().clamp(min=1)

    def log_likelihood(self, frames: Tensor, window_frames: int) -> Tensor | None:  # noqa: ARG002
        """Nats of each frame after the window, given all before it: (B, F - window_frames).

        None for networks that tell frames and no densities.
        """
        return None

    @abstractmethod
    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,
        rollout: Rollout,
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,
    ) -> Tensor:
        """Continues (B, window, E) by (B, steps, E).

        `sliding` keeps to windows and horizons as trained; `published` does as the published code.
        """


class OneStepNetwork(Network):
    """Predicts the frame after each frame, and feeds itself to go on."""

    @staticmethod
    def frames_ahead(forecast_frames: int) -> int:  # noqa: ARG004
        """One, whatever is to be forecast."""
        return 1

    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        """Teacher forcing, and then its own voice.

        Every frame of the window is given and the frame after each told. What lies further beyond
        the window is told by hearing itself, so that it learns to bear its own errors.
        """
        window = sequences[:, :window_frames]
        told: Tensor = self(window)
        frames_ahead = sequences.shape[1] - window_frames
        if frames_ahead == 1:
            return told
        alone = self.continued(window, frames_ahead, 1, "sliding", never_stop)
        return torch.cat((told[:, :-1], alone), dim=1)


class ForecastNetwork(Network):
    """Predicts several frames at once; `forward(window, steps)` is the published call."""

    @staticmethod
    def frames_ahead(forecast_frames: int) -> int:
        """All that is forecast at once."""
        return forecast_frames

    @staticmethod
    def frames_told(window_frames: int, frames_ahead: int) -> int:  # noqa: ARG004
        """The forecast."""
        return frames_ahead

    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        """The forecast of all that follows the window."""
        told: Tensor = self(sequences[:, :window_frames], sequences.shape[1] - window_frames)
        return told

    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,
        rollout: Rollout,
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,  # noqa: ARG002
    ) -> Tensor:
        """Forecasts as far as trained, again and again from where that led, and cuts.

        `published` forecasts all steps at once, however far.
        """
        if rollout == "published":
            whole: Tensor = self(window, steps)
            return whole
        forecasts: list[Tensor] = []
        for _ in range(0, steps, forecast_frames):
            stop()
            forecasts.append(self(window, forecast_frames))
            window = torch.cat((window, forecasts[-1]), dim=1)[:, -window.shape[1] :]
        return torch.cat(forecasts, dim=1)[:, :steps]
