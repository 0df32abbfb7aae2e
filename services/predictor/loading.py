"""From a config and safetensors bytes to a predictor."""

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from services.errors import CorruptObjectError, InvalidInputError
from services.learning.loading import refuse_absurd_sizes
from services.predictor.config import PredictorConfig
from services.predictor.network_predictor import NetworkPredictor
from services.predictor.networks.lstm import LSTM
from services.predictor.networks.lstm_encoder_decoder import LSTMEncoderDecoder
from services.predictor.networks.network import Network, NetworkShape
from services.predictor.networks.probabilistic_transformer import ProbabilisticTransformer
from services.predictor.networks.transformer import Transformer
from services.predictor.networks.transformer_encoder_only import TransformerEncoderOnly
from services.predictor.port import Predictor

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

    Raises CorruptObjectError if either is damaged, if there is no such network, or if they do not
    fit each other.
    """
    read = PredictorConfig.from_json(config)
    network = _constructed(architecture_of(read), read.shape)
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


def _constructed(architecture: type[Network], shape: NetworkShape) -> Network:
    """The network without weights; CorruptObjectError, naming the key, for sizes it cannot have."""
    try:
        refuse_absurd_sizes(shape)
        with torch.device("meta"):
            return architecture(shape)
    except (InvalidInputError, ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        key = f"shape.{error.culprit}" if isinstance(error, InvalidInputError) else "shape"
        raise CorruptObjectError(
            f"config.json of a predictor: {key}: {error}", culprit=key
        ) from error
