"""The published "LSTM": one step ahead, feeding itself (Hochreiter & Schmidhuber, 1997)."""

import torch
from torch import Tensor, nn

from services.predictor.networks.anchor import STEP_FRAMES, LinearStep
from services.predictor.networks.network import (
    MOST_LIKELY,
    Chance,
    FittingBatches,
    NetworkShape,
    OneStepNetwork,
    Rollout,
)
from services.predictor.port import Checkpoint, never_stop

State = tuple[tuple[Tensor, Tensor], Tensor | None]
"""Of the LSTM, and the frames before, where the anchor asks for them."""


class LSTM(OneStepNetwork):
    """Stacked LSTM and a linear layer; it has no position code."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            shape.feature_count, shape.hidden_size, shape.num_layers, batch_first=True
        )
        self.linear = nn.Linear(shape.hidden_size, shape.feature_count)
        self.anchor = LinearStep(shape.feature_count) if shape.anchor == "linear" else None
        self.adds_change = shape.anchor == "last"
        if self.anchor is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """The frame after each of (B, F, E): (B, F, E)."""
        return self._step(frames, None)[0]

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Fits the linear anchor, if there is one."""
        if self.anchor is not None:
            self.anchor.fit(batches, window_frames)

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
        return self._told(window, steps, stop)[:, window.shape[1] - 1 :]

    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        """See OneStepNetwork; the window is heard once."""
        frames_ahead = sequences.shape[1] - window_frames
        return self._told(sequences[:, :window_frames], frames_ahead, never_stop)

    def _told(self, window: Tensor, steps: int, stop: Checkpoint) -> Tensor:
        """The frame after each of the window, and `steps` - 1 more."""
        told, state = self._step(window, None)
        predicted = [told]
        for _ in range(steps - 1):
            stop()
            told, state = self._step(told[:, -1:], state)
            predicted.append(told)
        return torch.cat(predicted, dim=1)

    def _step(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        memory, before = state or (None, None)
        hidden, memory = self.lstm(frames, memory)
        told = self.linear(hidden)
        if self.adds_change:
            told = frames + told
        if self.anchor is not None:
            if before is None:
                before = frames[:, :1].expand(-1, STEP_FRAMES - 1, -1)
            told = told + self.anchor(frames, before)
            before = torch.cat((before, frames), dim=1)[:, 1 - STEP_FRAMES :]
        return told, (memory, before)
