"""What a forecast is told as a change from: nothing, the last frame, a mean, or a linear forecast.

A network that has to tell whole frames spends its training on finding out that the next ones are
like the last; a linear model does well at it (Zeng et al., 2023, "Are Transformers Effective for
Time Series Forecasting?"). So the network tells only what is to be added.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from services.predictor.networks.network import Anchor

LAST_FRAMES = 8
MEANS_OVER = (8, 16, 32, 64, 128, 256)
HORIZONS = (*range(1, 17), 20, 25, 32, 40, 50, 64, 80, 100, 150, 250, 500)
STEP_FRAMES = 16
RIDGE = 1e-3
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


class LinearForecast(nn.Module):
    """Least squares from a window to some horizons ahead of it, and straight lines between them.

    A window is its last frames and the means over its last 8, 16, … 256, as far as it reaches. It
    is fitted once and not trained on; before, it repeats the last frame.
    """

    weight: Tensor

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        rows = (LAST_FRAMES + len(MEANS_OVER)) * feature_count + 1
        weight = torch.zeros(len(HORIZONS), rows, feature_count)
        weight[:, :feature_count] = torch.eye(feature_count)
        self.register_buffer("weight", weight)

    def forward(self, window: Tensor, steps: int) -> Tensor:
        """The `steps` frames after (B, F, E): (B, steps, E)."""
        told = torch.einsum("br,hre->bhe", self._summary(window), self.weight)
        known = torch.tensor(HORIZONS, device=window.device)
        wanted = torch.arange(1, steps + 1, device=window.device).clamp(max=HORIZONS[-1])
        after = torch.searchsorted(known, wanted).clamp(min=1)
        share = (wanted - known[after - 1]) / (known[after] - known[after - 1])
        return torch.lerp(told[:, after - 1], told[:, after], share.to(told.dtype)[:, None])

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]], window_frames: int) -> None:
        """Least squares over (frames, counts), (B, window + ahead, E) and (B, window + ahead).

        Horizons beyond those that are there are told as the furthest one.
        """
        rows = self.weight.shape[1]
        squares = torch.zeros(len(HORIZONS), rows, rows, dtype=torch.float64)
        products = torch.zeros(self.weight.shape, dtype=torch.float64)
        for frames, counts in batches:
            given = self._summary(frames[:, :window_frames]).double().cpu()
            ahead = frames.shape[1] - window_frames
            for i, horizon in enumerate(HORIZONS):
                place = window_frames + min(horizon, ahead) - 1
                weighed = given * counts[:, place, None].double().cpu()
                squares[i] += weighed.T @ given
                products[i] += weighed.T @ frames[:, place].double().cpu()
        ridge = RIDGE * squares.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1.0)
        squares += ridge[:, None, None] * torch.eye(rows, dtype=torch.float64)
        self.weight.copy_(torch.linalg.solve(squares, products))

    def _summary(self, window: Tensor) -> Tensor:
        """(B, F, E) as (B, rows): the newest frame first, then means, then 1."""
        frames = window.shape[1]
        last = [window[:, -min(i, frames)] for i in range(1, LAST_FRAMES + 1)]
        means = [window[:, -min(count, frames) :].mean(dim=1) for count in MEANS_OVER]
        return torch.cat((*last, *means, torch.ones_like(window[:, 0, :1])), dim=1)


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
        if before is None:
            before = frames[:, :1].expand(-1, STEP_FRAMES - 1, -1)
        told: Tensor = self.linear(_trailing(torch.cat((before, frames), dim=1)))
        return told

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]], window_frames: int) -> None:
        """Least squares over (frames, counts), (B, window + ahead, E) and (B, window + ahead)."""
        rows = self.linear.in_features + 1
        squares = torch.zeros(rows, rows, dtype=torch.float64)
        products = torch.zeros(rows, self.linear.out_features, dtype=torch.float64)
        for frames, counts in batches:
            before = frames[:, :1].expand(-1, STEP_FRAMES - 1, -1)
            heard = _trailing(torch.cat((before, frames[:, :window_frames]), dim=1))[:, -1]
            given = torch.cat((heard, torch.ones_like(heard[:, :1])), dim=1).double().cpu()
            weighed = given * counts[:, window_frames, None].double().cpu()
            squares += weighed.T @ given
            products += weighed.T @ frames[:, window_frames].double().cpu()
        squares += RIDGE * squares.diagonal().mean().clamp(min=1.0) * torch.eye(rows)
        solved = torch.linalg.solve(squares, products)
        self.linear.weight.copy_(solved[:-1].T)
        self.linear.bias.copy_(solved[-1])


def _trailing(frames: Tensor) -> Tensor:
    """The last 16 frames at each from the 16th on, the newest last: (B, F - 15, 16 E)."""
    return frames.unfold(1, STEP_FRAMES, 1).transpose(2, 3).flatten(2)


def anchor_of(anchor: Anchor, feature_count: int) -> "Anchored | LinearForecast":
    """The module of that name."""
    return LinearForecast(feature_count) if anchor == "linear" else Anchored(anchor)
