"""A network between z-scores: raw values in, raw values out, and the deltas that follow."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from services.predictor.config import PredictorConfig
from services.predictor.deltas import REACH, WIDTH, with_deltas
from services.predictor.networks.network import Chance, Network
from services.predictor.port import BatchPredictor, Checkpoint, FloatArray


class NetworkPredictor(BatchPredictor):
    """A trained network as a predictor."""

    def __init__(self, config: PredictorConfig, network: Network) -> None:
        self._config = config
        self._network = network
        self._means = np.asarray(config.means)
        self._scales = config.scales
        self._computes_deltas = config.deltas == "computed"
        self._feature_names = config.track_feature_names

    @property
    def architecture(self) -> str:
        """Its form, as "LSTM"."""
        return self._config.architecture

    @property
    def window_frames(self) -> int:
        """Frames that it looks at."""
        return self._config.window_frames

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns that it reads and writes, in its own order."""
        return self._feature_names

    @property
    def sample_rate_hertz(self) -> int:
        """Rate of the descriptors that it knows."""
        return self._config.sample_rate_hertz

    @property
    def hop_length_samples(self) -> int:
        """Hop of the descriptors that it knows."""
        return self._config.hop_length_samples

    @property
    def stochastic(self) -> bool:
        """Whether its network draws at random; the published ones give one answer."""
        return self._network.stochastic

    @property
    def size_bytes(self) -> int:
        """Memory of its weights."""
        return sum(each.nbytes for each in self._network.state_dict().values())

    @torch.inference_mode()
    def log_likelihood(self, frames: FloatArray, window_frames: int) -> NDArray[np.float64] | None:
        """Log density, in nats, of each frame after the first `window_frames`: (B, F - window).

        `frames` are raw (B, F, features); the density is that of the raw values that the network
        tells, which are the static coefficients where deltas are computed. None if it has none.
        """
        known = frames[:, :, : len(self._config.feature_names)]
        device = next(self._network.parameters()).device
        scored = torch.from_numpy(((known - self._means) / self._scales).astype(np.float32))
        density = self._network.log_likelihood(scored.to(device), window_frames)
        if density is None:
            return None
        nats: NDArray[np.float64] = density.double().cpu().numpy()
        raw: NDArray[np.float64] = nats - np.log(self._scales).sum()
        return raw

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        chance = Chance(tuple(seeds), temperature)
        if not self._computes_deltas:
            return self._told(windows, steps, checkpoint, chance).astype(np.float32)
        statics = windows[:, :, : len(self._config.feature_names)]
        # Deltas look ahead: with some frames more, a longer answer begins as a shorter one.
        told = self._told(statics, steps + REACH, checkpoint, chance)
        # No slope can be fitted to what is not finite: such a sequence is so as a whole.
        finite = np.isfinite(told).all(axis=(1, 2), keepdims=True)
        told = np.where(finite, told, 0.0)
        whole = with_deltas(np.concatenate([statics[:, -WIDTH:], told], axis=1))
        whole = np.where(finite, whole, np.nan)
        return whole[:, -steps - REACH : -REACH].astype(np.float32)

    @torch.inference_mode()
    def _told(
        self, windows: FloatArray, steps: int, checkpoint: Checkpoint, chance: Chance
    ) -> NDArray[np.float64]:
        """What the network says to raw values, in raw values: (B, steps, E)."""
        device = next(self._network.parameters()).device
        scored = ((windows - self._means) / self._scales).astype(np.float32)
        continued = self._network.continued(
            torch.from_numpy(scored).to(device),
            steps,
            self._config.forecast_frames,
            self._config.rollout,
            checkpoint,
            chance=chance,
        )
        raw: NDArray[np.float64] = continued.cpu().numpy() * self._scales + self._means
        return raw
