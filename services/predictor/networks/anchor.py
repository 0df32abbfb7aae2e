"""What a forecast is told as a change from: nothing, the last frame, a mean, or a linear forecast.

A network that has to tell whole frames spends its training on finding out that the next ones are
like the last; a linear model does well at it (Zeng et al., 2023, "Are Transformers Effective for
Time Series Forecasting?"). So the network tells only what is to be added.
"""

import torch
from torch import Tensor, nn

from services.predictor.networks.network import Anchor, FittingBatches
from services.predictor.networks.stability import stabilised

MEANS_OVER = (8, 16, 32, 64, 128, 256)
HORIZONS = (1, 4, 8, 16, 32, 64, 100, 150, 250, 500)
STEP_FRAMES = 16
FITTED_STEPS = 8
"""Frames of each window that an autoregression is fitted to."""
RIDGE = 0.03
"""Of the mean square of what is regressed on."""


class Anchored(nn.Module):
    """An anchor of forecasts; "none" is 0."""

    def __init__(self, anchor: Anchor) -> None:
        super().__init__()
        self._anchor = anchor

    def forward(self, window: Tensor, steps: int) -> Tensor:  # noqa: ARG002
        """Of (B, F, E): (B, 1, E), the same for all steps."""
        if self._anchor == "last":
            return window[:, -1:]
        if self._anchor == "mean":
            return window.mean(dim=1, keepdim=True)
        return torch.zeros_like(window[:, -1:])

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """There is nothing to fit."""


class LinearForecast(nn.Module):
    """A linear autoregression, iterated, and what least squares add to it at some horizons.

    An autoregression is good at the next frames and forgets soon what the sound was like; so what
    it misses at some horizons is regressed on the last frame and the means over the last 8, 16, …
    256, as far as the window reaches, with straight lines between them. Both are fitted once and
    not trained on; before, the last frame is repeated.
    """

    weight: Tensor

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        rows = (1 + len(MEANS_OVER)) * feature_count + 1
        self.step = LinearStep(feature_count).requires_grad_(False)
        self.register_buffer("weight", torch.zeros(len(HORIZONS), rows, feature_count))

    def forward(self, window: Tensor, steps: int) -> Tensor:
        """The `steps` frames after (B, F, E): (B, steps, E)."""
        missed = torch.einsum("br,hre->bhe", self._summary(window), self.weight)
        known = torch.tensor(HORIZONS, device=window.device)
        wanted = torch.arange(1, steps + 1, device=window.device).clamp(max=HORIZONS[-1])
        after = torch.searchsorted(known, wanted).clamp(min=1)
        share = (wanted - known[after - 1]) / (known[after] - known[after - 1])
        missed = torch.lerp(missed[:, after - 1], missed[:, after], share.to(missed.dtype)[:, None])
        return self._iterated(window, steps) + missed

    @torch.no_grad()
    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Least squares, see `Network.fit`.

        Horizons beyond those that are there are told as the furthest one.
        """
        self.step.fit(batches, window_frames)
        horizons, rows, features = self.weight.shape
        sums = NormalEquations(rows, horizons * features)
        for frames, counts in batches:
            ahead = frames.shape[1] - window_frames
            places = [min(horizon, ahead) - 1 for horizon in HORIZONS]
            window, future = frames[:, :window_frames], frames[:, window_frames:]
            missed = (future - self._iterated(window, ahead))[:, places]
            # A window counts if all that is to be told of it does.
            counted = counts[:, window_frames:][:, places].amin(dim=1)
            sums.add(self._summary(window), missed.flatten(1), counted)
        self.weight.copy_(sums.solved().view(rows, horizons, features).transpose(0, 1))

    def _iterated(self, window: Tensor, steps: int) -> Tensor:
        heard = padded(window)[:, -STEP_FRAMES:]
        told = []
        for _ in range(steps):
            told.append(self.step.linear(heard.flatten(1)))
            heard = torch.cat((heard[:, 1:], told[-1][:, None]), dim=1)
        return torch.stack(told, dim=1)

    def _summary(self, window: Tensor) -> Tensor:
        """(B, F, E) as (B, rows): the last frame, then means, then 1."""
        frames = window.shape[1]
        means = [window[:, -min(count, frames) :].mean(dim=1) for count in MEANS_OVER]
        return torch.cat((window[:, -1], *means, torch.ones_like(window[:, 0, :1])), dim=1)


class LinearStep(nn.Module):
    """A linear autoregression of the last 16 frames, fitted by least squares and then trained on.

    Before it is fitted, it repeats the last frame.
    """

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(STEP_FRAMES * feature_count, feature_count)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.zero_()
            self.linear.weight[:, -feature_count:] = torch.eye(feature_count)

    def forward(self, frames: Tensor, before: Tensor | None = None) -> Tensor:
        """The frame after each of (B, F, E), with the 15 `before`, (B, 15, E): (B, F, E).

        Where nothing was before, the first frame was.
        """
        heard = padded(frames) if before is None else torch.cat((before, frames), dim=1)
        told: Tensor = self.linear(_trailing(heard))
        return told

    @torch.no_grad()
    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Least squares, see `Network.fit`; one that would explode is made stable."""
        sums = NormalEquations(self.linear.in_features + 1, self.linear.out_features)
        for frames, counts in batches:
            last = padded(frames[:, :window_frames])[:, 1 - STEP_FRAMES - FITTED_STEPS :]
            heard = _trailing(last).flatten(0, 1)
            told = slice(max(window_frames - FITTED_STEPS, 0) + 1, window_frames + 1)
            given = torch.cat((heard, torch.ones_like(heard[:, :1])), dim=1)
            sums.add(given, frames[:, told].flatten(0, 1), counts[:, told].flatten())
        solved = sums.solved()
        lags = solved[:-1].view(STEP_FRAMES, -1, self.linear.out_features).flip(0)
        stable = torch.from_numpy(stabilised(lags.numpy())[0]).flip(0)
        self.linear.weight.copy_(stable.flatten(0, 1).T)
        self.linear.bias.copy_(solved[-1])


class NormalEquations:
    """The sums that least squares are solved from."""

    def __init__(self, given: int, wanted: int) -> None:
        self._squares = torch.zeros(given, given, dtype=torch.float64)
        self._products = torch.zeros(given, wanted, dtype=torch.float64)

    def add(self, given: Tensor, wanted: Tensor, counts: Tensor) -> None:
        """Rows of (B, given) and (B, wanted), with weights (B,)."""
        weighed = given * counts[:, None]
        self._squares += (weighed.T @ given).double().cpu()
        self._products += (weighed.T @ wanted).double().cpu()

    def solved(self) -> Tensor:
        """(given, wanted), with a little ridge."""
        squares = self._squares
        ridge = RIDGE * squares.diagonal().mean().clamp(min=1.0)
        squares = squares + ridge * torch.eye(len(squares))
        solved: Tensor = torch.linalg.solve(squares, self._products)
        return solved


def padded(frames: Tensor) -> Tensor:
    """(B, F, E) with the first frame 15 times before it: (B, 15 + F, E)."""
    return torch.cat((frames[:, :1].expand(-1, STEP_FRAMES - 1, -1), frames), dim=1)


def _trailing(frames: Tensor) -> Tensor:
    """The last 16 frames at each from the 16th on, the newest last: (B, F - 15, 16 E)."""
    return frames.unfold(1, STEP_FRAMES, 1).transpose(2, 3).flatten(2)


def anchor_of(anchor: Anchor, feature_count: int) -> "Anchored | LinearForecast":
    """The module of that name."""
    return LinearForecast(feature_count) if anchor == "linear" else Anchored(anchor)
