"""From a config and safetensors bytes to a predictor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load

from services.errors import CorruptObjectError
from services.predictor.config import PredictorConfig
from services.predictor.deltas import REACH, WIDTH, with_deltas
from services.predictor.networks.lstm import LSTM
from services.predictor.networks.lstm_encoder_decoder import LSTMEncoderDecoder
from services.predictor.networks.network import Chance, Network
from services.predictor.networks.probabilistic_transformer import ProbabilisticTransformer
from services.predictor.networks.transformer import Transformer
from services.predictor.networks.transformer_encoder_only import TransformerEncoderOnly
from services.predictor.port import Checkpoint, FloatArray, Predictor

ARCHITECTURES: dict[
    str,
    type[
        LSTM | LSTMEncoderDecoder | TransformerEncoderOnly | Transformer | ProbabilisticTransformer
    ],
] = {
    "LSTM": LSTM,
    "LSTMEncoderDecoderModel": LSTMEncoderDecoder,
    "TransformerEncoderOnlyModel": TransformerEncoderOnly,
    "TransformerModel": Transformer,
    "ProbabilisticTransformer": ProbabilisticTransformer,
}


def load_predictor(
    config: dict[str, Any], weights: bytes, *, device: torch.device | str = "cpu"
) -> Predictor:
    """The predictor that `config` (a config.json) and `weights` (safetensors) describe.

    Raises CorruptObjectError if either is damaged or they do not fit each other.
    """
    read = PredictorConfig.from_json(config)
    with torch.device("meta"):
        network = architecture_of(read)(read.shape)
    try:
        network.load_state_dict(load(weights), assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObjectError(
            f"weights do not fit the {read.architecture} of their config.json: {error}",
            culprit="weights",
        ) from error
    return NetworkPredictor(read, network.to(device).eval())


def architecture_of(config: PredictorConfig) -> type[Network]:
    """The class of its network; CorruptObjectError for an architecture that is not known."""
    if config.architecture not in ARCHITECTURES:
        raise CorruptObjectError(
            f"config.json of a predictor: architecture is {config.architecture!r}, not one of "
            f"{', '.join(ARCHITECTURES)}",
            culprit="architecture",
        )
    return ARCHITECTURES[config.architecture]


class NetworkPredictor(Predictor):
    """A network between z-scores: raw values in, raw values out."""

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
        density = getattr(self._network, "log_likelihood", None)
        if density is None:
            return None
        known = frames[:, :, : len(self._config.feature_names)]
        device = next(self._network.parameters()).device
        scored = torch.from_numpy(((known - self._means) / self._scales).astype(np.float32))
        nats: NDArray[np.float64] = density(scored.to(device), window_frames).double().cpu().numpy()
        raw: NDArray[np.float64] = nats - np.log(self._scales).sum()
        return raw

    def _continue(
        self,
        window: FloatArray,
        steps: int,
        seed: int,
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        answer: FloatArray = self._continue_many(
            window[None], steps, [seed], temperature, checkpoint
        )[0]
        return answer

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
        whole = with_deltas(np.concatenate([statics[:, -WIDTH:], told], axis=1))
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
