"""From a config and safetensors bytes to a predictor."""

from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from services.errors import CorruptObjectError
from services.predictor.config import PredictorConfig
from services.predictor.lstm import LSTM
from services.predictor.lstm_encoder_decoder import LSTMEncoderDecoder
from services.predictor.network import Network
from services.predictor.port import Checkpoint, FloatArray, Predictor
from services.predictor.transformer import Transformer
from services.predictor.transformer_encoder_only import TransformerEncoderOnly

ARCHITECTURES: dict[str, type[LSTM | LSTMEncoderDecoder | TransformerEncoderOnly | Transformer]] = {
    "LSTM": LSTM,
    "LSTMEncoderDecoderModel": LSTMEncoderDecoder,
    "TransformerEncoderOnlyModel": TransformerEncoderOnly,
    "TransformerModel": Transformer,
}


def load_predictor(
    config: dict[str, Any], weights: bytes, *, device: torch.device | str = "cpu"
) -> Predictor:
    """The predictor that `config` (a config.json) and `weights` (safetensors) describe.

    Raises CorruptObjectError if either is damaged or they do not fit each other.
    """
    read = PredictorConfig.from_json(config)
    if read.architecture not in ARCHITECTURES:
        raise CorruptObjectError(
            f"config.json of a predictor: architecture is {read.architecture!r}, not one of "
            f"{', '.join(ARCHITECTURES)}",
            culprit="architecture",
        )
    with torch.device("meta"):
        network = ARCHITECTURES[read.architecture](read.shape)
    try:
        network.load_state_dict(load(weights), assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObjectError(
            f"weights do not fit the {read.architecture} of their config.json: {error}",
            culprit="weights",
        ) from error
    return NetworkPredictor(read, network.to(device).eval())


class NetworkPredictor(Predictor):
    """A network between z-scores: raw values in, raw values out."""

    def __init__(self, config: PredictorConfig, network: Network) -> None:
        self._config = config
        self._network = network
        self._means = np.asarray(config.means)
        self._scales = config.scales

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
        return self._config.feature_names

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
        """Never: the published networks give one answer."""
        return False

    @torch.inference_mode()
    def _continue(
        self,
        window: FloatArray,
        steps: int,
        seed: int,  # noqa: ARG002
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,
    ) -> FloatArray:
        device = next(self._network.parameters()).device
        scored = ((window - self._means) / self._scales).astype(np.float32)
        continued = self._network.continued(
            torch.from_numpy(scored).unsqueeze(0).to(device),
            steps,
            self._config.forecast_frames,
            self._config.rollout,
            checkpoint,
        )
        raw = continued[0].cpu().numpy() * self._scales + self._means
        answer: FloatArray = raw.astype(np.float32)
        return answer
