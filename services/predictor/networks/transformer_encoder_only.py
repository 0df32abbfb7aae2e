"""The published "TransformerEncoderOnlyModel": self-attention, one step ahead, feeding itself.

The published mask was meant to be causal, but was filled as a boolean: it adds 1 to the attention
paid to later frames instead of forbidding it. Weights trained so need it to answer as they did;
what is trained here cannot look ahead.
"""

import math

import torch
from torch import Tensor, nn

from services.predictor.networks.anchor import LinearStep
from services.predictor.networks.network import (
    MOST_LIKELY,
    Chance,
    FittingBatches,
    Mask,
    NetworkShape,
    OneStepNetwork,
    Rollout,
)
from services.predictor.networks.position import position_codes, with_codes
from services.predictor.port import Checkpoint

TRAINING_NOISE = 0.05
LATER_FRAMES: dict[Mask, float] = {"causal": -math.inf, "published": 1.0}


class TransformerEncoderOnly(OneStepNetwork):
    """Each frame attends to itself and those before; a linear layer reads off the next frame."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.position_width = shape.dim_pos_encoding
        self.later_frames = LATER_FRAMES[shape.mask]
        self.anchor = LinearStep(shape.feature_count) if shape.anchor == "linear" else None
        self.adds_change = shape.anchor == "last"
        self.frame_dropout = nn.Dropout1d(shape.dropout)
        self.transformer_encoder = shape.encoder()
        self.linear = nn.Linear(shape.model_width, shape.feature_count)
        if self.anchor is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """The frame after each of (B, F, E): (B, F, E). In training, inputs are made harder."""
        count, last = frames.shape[1], frames
        # Dropout1d takes (B, channels, length): here whole frames go, as in the published model.
        frames = self.frame_dropout(frames)
        if self.training:
            frames = frames + TRAINING_NOISE * torch.randn_like(frames)
        coded = with_codes(frames, position_codes(count, self.position_width, frames))
        later = torch.full((count, count), self.later_frames, device=frames.device).triu(1)
        told: Tensor = self.linear(self.transformer_encoder(coded, mask=later.to(frames.dtype)))
        if self.anchor is not None:
            told = told + self.anchor(last)
        return last + told if self.adds_change else told

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Fits the linear anchor, if there is one."""
        if self.anchor is not None:
            self.anchor.fit(batches, window_frames)

    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,  # noqa: ARG002
        rollout: Rollout,
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,  # noqa: ARG002
    ) -> Tensor:
        """Feeds itself with the last window of frames; `published` lets the context grow."""
        length = window.shape[1]
        heard = window
        for _ in range(steps):
            stop()
            context = heard if rollout == "published" else heard[:, -length:]
            heard = torch.cat((heard, self(context)[:, -1:]), dim=1)
        return heard[:, length:]
