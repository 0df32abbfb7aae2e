"""What is measured on held-out sound while a predictor learns."""

import torch
from torch import Tensor

from services.predictor.networks.network import MOST_LIKELY, Chance, Network
from services.predictor.port import never_stop
from services.predictor.training.batches import Batches
from services.predictor.training.corpus import Windows
from services.predictor.training.settings import PredictorTraining

FREE_RUNS = 16
FREE_RUN_FRAMES = 64
FREE_RUN_STRETCHES = 8
STANDSTILL = 0.01
ROLLOUTS = 64
ROLLOUT_FRAMES = 100


class Validation:
    """Figures of a network on held-out windows, the smaller the better."""

    def __init__(
        self,
        windows: Windows,
        settings: PredictorTraining,
        sequence_frames: int,
        forecast_frames: int,
        device: torch.device,
    ) -> None:
        self.windows = Batches(windows, sequence_frames, device)
        self._window_frames = settings.window_size
        self._forecast_frames = forecast_frames
        self._batch_size = settings.batch_size
        self._starts = self.windows.spread(settings.validation_windows)
        starts = windows.starts
        # Starts follow each other within a track: one that follows k others is k frames longer.
        longer = min(max(settings.window_size + ROLLOUT_FRAMES - sequence_frames, 0), len(starts))
        while longer and not (starts[longer:] - starts[: len(starts) - longer] == longer).any():
            longer -= 1
        fits = starts[longer:] - starts[: len(starts) - longer] == longer
        far = Windows(windows.frames, windows.counts, starts[: len(starts) - longer][fits])
        self._far = Batches(far, sequence_frames + longer, device)

    @torch.inference_mode()
    def figures(self, network: Network) -> dict[str, float]:
        """{its loss, "free_run", "rollout_mse"}; all of them are read from the device at the end.

        The loss, named as the network names it, is that of training, without noise. `free_run`
        tells how far a long continuation moves unlike the recordings: the mean distance of the
        logarithms of spread and pace, 0 if they are alike. `rollout_mse` is the mean squared
        error of the 100 frames after a window, in z-scores, as far as held-out sounds are that
        long.
        """
        network.eval()
        figures = torch.stack(
            (self._loss(network), self._free_run(network), self._rollout_mse(network))
        )
        return dict(
            zip((network.loss_name, "free_run", "rollout_mse"), figures.tolist(), strict=True)
        )

    def _loss(self, network: Network) -> Tensor:
        batches = torch.split(self._starts, self._batch_size)
        losses = []
        for starts in batches:
            frames, counts = self.windows.at(starts)
            losses.append(network.loss(frames, frames, counts, self._window_frames))
        sizes = [float(len(starts)) for starts in batches]
        shares = torch.tensor(sizes, device=self._starts.device) / sum(sizes)
        return (torch.stack(losses) * shares).sum()

    def _free_run(self, network: Network) -> Tensor:
        stretch = min(self.windows.length, FREE_RUN_FRAMES)
        recorded, _ = self.windows.at(self.windows.spread(FREE_RUNS))
        continued = self._continued(
            network, recorded, FREE_RUN_STRETCHES * stretch, drawn=network.stochastic
        )
        distances = _motion(continued[:, -stretch:]) - _motion(recorded[:, -stretch:])
        return distances.abs().mean()

    def _rollout_mse(self, network: Network) -> Tensor:
        recorded, counts = self._far.at(self._far.spread(ROLLOUTS))
        steps = min(recorded.shape[1] - self._window_frames, ROLLOUT_FRAMES)
        recorded = recorded[:, : self._window_frames + steps]
        counts = counts[:, self._window_frames : self._window_frames + steps]
        continued = self._continued(network, recorded, steps, drawn=False)
        errors = (continued - recorded[:, self._window_frames :]).square().mean(dim=2)
        return (errors * counts).sum() / counts.sum().clamp(min=1)

    def _continued(self, network: Network, recorded: Tensor, steps: int, *, drawn: bool) -> Tensor:
        chance = Chance(tuple(range(len(recorded))), 1.0) if drawn else MOST_LIKELY
        return network.continued(
            recorded[:, : self._window_frames],
            steps,
            self._forecast_frames,
            "sliding",
            never_stop,
            chance=chance,
        )


def _motion(frames: Tensor) -> Tensor:
    """Logarithms of each feature's spread and pace in (B, F, E), averaged over the batch: (2, E).

    Logarithms first, so that a single run that stands still is not hidden by lively ones.
    """
    spread = frames.std(dim=1)
    pace = frames.diff(dim=1).abs().mean(dim=1)
    return (torch.stack((spread, pace)) + STANDSTILL).log().mean(dim=1)
