"""The published "LSTM": one step ahead, feeding itself (Hochreiter & Schmidhuber, 1997)."""

import torch
from torch import Tensor, nn

from services.predictor.networks.network import (
    MOST_LIKELY,
    Chance,
    NetworkShape,
    OneStepNetwork,
    Rollout,
)
from services.predictor.port import Checkpoint

State = tuple[Tensor, Tensor]


class LSTM(OneStepNetwork):
    """Stacked LSTM and a linear layer; it has no position code."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            shape.feature_count, shape.hidden_size, shape.num_layers, batch_first=True
        )
        self.linear = nn.Linear(shape.hidden_size, shape.feature_count)

    def forward(self, frames: Tensor) -> Tensor:
        """The frame after each of (B, F, E): (B, F, E)."""
        return self._step(frames, None)[0]

    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,  # noqa: ARG002
        rollout: Rollout,  # noqa: ARG002
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,  # noqa: ARG002
    ) -> Tensor:
        """Listens to the window, then to itself; all it remembers is its state."""
        told, state = self._step(window, None)
        predicted = [told[:, -1:]]
        while len(predicted) < steps:
            stop()
            told, state = self._step(predicted[-1], state)
            predicted.append(told)
        return torch.cat(predicted, dim=1)

    def _step(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        hidden, state = self.lstm(frames, state)
        return self.linear(hidden), state
