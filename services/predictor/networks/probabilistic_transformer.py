"""The fifth predictor: a causal Transformer that tells a density over the next frame, and draws.

A model of squared error tells the mean of all that may follow, and fed with means it falls silent.
This one maximises the likelihood of what did follow, and goes on with a frame drawn from what may.
Layers are pre-norm (Xiong et al., 2020, arXiv:2002.04745) and attend to the last frames alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.errors import InvalidInputError
from services.predictor.networks.mixture import Mixture, parameter_count
from services.predictor.networks.network import (
    MOST_LIKELY,
    Chance,
    Network,
    NetworkShape,
    Rollout,
)
from services.predictor.networks.windowed_attention import (
    KeyValueRing,
    WindowedAttention,
    rotations,
)
from services.predictor.port import Checkpoint

INPUT_FRAMES = 16
"""Last frames that are read together, and that the linear part of the next frame is made of."""


class ProbabilisticTransformer(Network):
    """Each frame is drawn from a mixture around a linear continuation of the last frames."""

    stochastic = True
    loss_name = "nll"

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        if shape.hidden_size % (2 * shape.nhead):
            raise InvalidInputError(
                f"hidden_size is {shape.hidden_size}; it must be a multiple of 2 x nhead, "
                f"{2 * shape.nhead}",
                culprit="hidden_size",
            )
        self.mixtures = shape.mixtures
        self.attention_frames = shape.attention_frames
        heard = INPUT_FRAMES * shape.feature_count
        self.embedding = nn.Linear(heard, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.hidden_size)
        self.linear = nn.Linear(heard, shape.feature_count, bias=False)
        self.density = nn.Linear(
            shape.hidden_size, parameter_count(shape.feature_count, shape.mixtures)
        )
        self.head_width = shape.hidden_size // shape.nhead
        with torch.no_grad():
            # At first the next frame is the last one, more or less.
            self.linear.weight.zero_()
            self.linear.weight[:, -shape.feature_count :] = torch.eye(shape.feature_count)
            self.density.weight.mul_(0.1)

    @property
    def receptive_frames(self) -> int:
        """Last frames that the next one depends on."""
        return len(self.layers) * (self.attention_frames - 1) + INPUT_FRAMES

    @staticmethod
    def frames_ahead(forecast_frames: int) -> int:  # noqa: ARG004
        """One, whatever is to be forecast."""
        return 1

    @staticmethod
    def frames_told(window_frames: int, frames_ahead: int) -> int:  # noqa: ARG004
        """All but the first, before which too little was heard to judge them."""
        return window_frames - _lead_in(window_frames)

    def forward(self, frames: Tensor, rings: Sequence[KeyValueRing] | None = None) -> Mixture:
        """What follows each of (B, F, E), given it and all before: mixtures of (B, F).

        `rings`, one a layer, are filled so that `_step` can go on.
        """
        count = frames.shape[1]
        padded = functional.pad(frames, (0, 0, INPUT_FRAMES - 1, 0))
        heard = padded.unfold(1, INPUT_FRAMES, 1).transpose(2, 3).flatten(2)
        rotary = rotations(0, count, self.head_width, frames)
        hidden = self.embedding(heard)
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, rotary, rings[i] if rings else None)
        return self._mixture(hidden, heard)

    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        """Teacher forcing: the expected frame after each of the window."""
        told: Mixture = self(sequences[:, :window_frames])
        return told.mean()

    def loss(self, frames: Tensor, heard: Tensor, counts: Tensor, window_frames: int) -> Tensor:
        """The negative log-likelihood of a frame, in nats: the mean over those that count.

        The first frames are given and not judged: nothing was heard before them. In training,
        each sequence is heard with a share of the noise, evenly drawn, so that some are heard
        almost as they are.
        """
        if self.training:
            share = torch.rand(len(frames), 1, 1, device=frames.device)
            heard = torch.lerp(frames, heard, share)
        told = self(heard[:, :window_frames]).log_density(frames[:, 1 : window_frames + 1])
        lead_in = _lead_in(window_frames)
        counts = counts[:, lead_in + 1 : window_frames + 1]
        total: Tensor = (told[:, lead_in:] * counts).sum()
        return -total / counts.sum().clamp(min=1)

    def log_likelihood(self, frames: Tensor, window_frames: int) -> Tensor:
        """Nats of each frame after the window, given all before it: (B, F - window_frames)."""
        told: Tensor = self(frames[:, :-1]).log_density(frames[:, 1:])
        return told[:, window_frames - 1 :]

    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,  # noqa: ARG002
        rollout: Rollout,  # noqa: ARG002
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,
    ) -> Tensor:
        """Draws frame after frame; earlier keys and values are kept, not computed again."""
        uniform, normal = _noise(chance, steps, window)
        stop()
        heard = self.hearing(window, steps)
        for i in range(steps):
            stop()
            heard.append(heard.mixture.drawn(uniform[:, i], normal[:, i], chance.temperature))
        return heard.frames[:, -steps:]

    def hearing(self, window: Tensor, steps: int) -> "Hearing":
        """What it knows after (B, F, E), with room for further steps."""
        return Hearing(self, window, steps)

    def recomputed(
        self, window: Tensor, steps: int, stop: Checkpoint, *, chance: Chance = MOST_LIKELY
    ) -> Tensor:
        """As `continued`, from nothing but the last frames at each step: slow, and the measure."""
        uniform, normal = _noise(chance, steps, window)
        heard = window
        for i in range(steps):
            stop()
            mixture = self(heard[:, -self.receptive_frames :]).at(-1)
            drawn = mixture.drawn(uniform[:, i], normal[:, i], chance.temperature)
            heard = torch.cat((heard, drawn.unsqueeze(1)), dim=1)
        return heard[:, window.shape[1] :]

    def after(self, heard: Tensor, rotary: Tensor, rings: Sequence[KeyValueRing]) -> Mixture:
        """What follows the last frames, (B, INPUT_FRAMES x E), given those before in `rings`.

        `rotary` are of the position of the very last, whose keys and values go into `rings`.
        """
        hidden = self.embedding(heard).unsqueeze(1)
        for layer, ring in zip(self._layers(), rings, strict=True):
            hidden = layer.step(hidden, rotary, ring)
        return self._mixture(hidden.squeeze(1), heard)

    def rings(self, batch: int, like: Tensor) -> list[KeyValueRing]:
        """Empty rings, one a layer."""
        return [layer.attention.ring(batch, like) for layer in self._layers()]

    def _layers(self) -> "list[Layer]":
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _mixture(self, hidden: Tensor, heard: Tensor) -> Mixture:
        # In bfloat16 a frame would be rounded by more than it changes.
        with torch.autocast(heard.device.type, enabled=False):
            centre = self.linear(heard)
        return Mixture.told(centre, self.density(self.norm(hidden)), self.mixtures)


class Hearing:
    """A sequence that grows by a frame at a time, and the mixture of what follows it."""

    def __init__(self, network: ProbabilisticTransformer, window: Tensor, steps: int) -> None:
        batch, self._count, features = window.shape
        self._network = network
        # Zeros before the first frame, as in `forward`.
        self._padded = window.new_zeros(batch, INPUT_FRAMES - 1 + self._count + steps, features)
        self.frames = self._padded[:, INPUT_FRAMES - 1 :]
        self.frames[:, : self._count] = window
        self._first = self._count
        self._rotary = rotations(self._count, steps, network.head_width, window)
        self._rings = network.rings(batch, window)
        self.mixture: Mixture = network(window, self._rings).at(-1)

    def append(self, frame: Tensor) -> None:
        """Hears (B, E)."""
        self.frames[:, self._count] = frame
        step = self._count - self._first
        self._count += 1
        heard = self._padded[:, self._count - 1 : self._count - 1 + INPUT_FRAMES].flatten(1)
        self.mixture = self._network.after(heard, self._rotary[:, step : step + 1], self._rings)


class Layer(nn.Module):
    """Attention, then a feed-forward layer at each frame, each added to what came in."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowedAttention(width, shape.nhead, shape.attention_frames)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, shape.dim_feedforward),
            nn.GELU(),
            nn.Linear(shape.dim_feedforward, width),
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, hidden: Tensor, rotary: Tensor, ring: KeyValueRing | None) -> Tensor:
        """(B, F, width) to the same, see `WindowedAttention`."""
        attended = self.attention(self.attention_norm(hidden), rotary, ring)
        return self._fed(hidden + self.dropout(attended))

    def step(self, hidden: Tensor, rotary: Tensor, ring: KeyValueRing) -> Tensor:
        """The same for one further frame, (B, 1, width)."""
        return self._fed(hidden + self.attention.step(self.attention_norm(hidden), rotary, ring))

    def _fed(self, hidden: Tensor) -> Tensor:
        told: Tensor = hidden + self.dropout(self.feedforward(hidden))
        return told


def _lead_in(window_frames: int) -> int:
    """First frames whose successors are not judged; never all of them."""
    return min(INPUT_FRAMES, window_frames) - 1


def _noise(chance: Chance, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers from 0 to 1, (B, steps), and normal ones, (B, steps, E), on the device of `like`.

    Each sequence has its own from its seed, in order of time: they are the same alone and among
    others, and more steps begin with those of fewer.
    """
    batch, _, features = like.shape
    if chance.temperature == 0:
        return like.new_zeros(batch, steps), like.new_zeros(batch, steps, features)
    uniform, normal = [], []
    for seed in chance.seeds:
        choice, noise = (np.random.default_rng((seed, stream)) for stream in (0, 1))
        uniform.append(choice.random(steps))
        normal.append(noise.standard_normal((steps, features)))
    return (
        torch.from_numpy(np.stack(uniform)).to(like.device, like.dtype),
        torch.from_numpy(np.stack(normal)).to(like.device, like.dtype),
    )
