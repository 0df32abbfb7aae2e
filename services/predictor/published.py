"""Checkpoints of buganart/descriptor-transformer, read as predictors of ours.

What was saved there is a Lightning checkpoint, a `data_stat.npz` and a `model_args.json` of
strings. Feature names were not saved: the 39 columns stood in string order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.errors import InvalidInputError
from services.predictor.config import PredictorConfig
from services.predictor.networks.network import NetworkShape, Rollout

PUBLISHED_FEATURE_NAMES = tuple(sorted(f"mfcc{i}" for i in range(39)))

# By architecture: published prefix -> ours; None leaves the tensor out. The first that fits counts.
_RENAMED: dict[str, tuple[tuple[str, str | None], ...]] = {
    "LSTM": (),
    "LSTMEncoderDecoderModel": (("pos_encoder.", None),),
    "TransformerEncoderOnlyModel": (
        ("model.pos_encoder.", None),
        # The template that the encoder's layers were copied from: saved, never used.
        ("model.encoder_layer.", None),
        ("model.decoder.", "linear."),
        ("model.", ""),
    ),
    "TransformerModel": (("pos_encoder.", None), ("transformer.", "")),
}


def from_published(
    checkpoint: Mapping[str, Any],
    data_stat: Mapping[str, ArrayLike],
    model_args: Mapping[str, Any] | None = None,
    *,
    feature_names: Sequence[str] | None = None,
    rollout: Rollout = "sliding",
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, state dict) of a published predictor.

    `checkpoint` is the loaded Lightning checkpoint, `data_stat` has "mean" and "std" of each
    feature, `model_args` (strings or values) goes before the checkpoint's own hyper-parameters.
    `rollout="published"` keeps the growing context and the unlimited horizon of the published
    code. Raises InvalidInputError, naming the argument, for what is missing or does not fit.
    """
    arguments = _hyper_parameters(checkpoint) | dict(model_args or {})
    architecture = str(arguments.get("selected_model", ""))
    if architecture not in _RENAMED:
        raise InvalidInputError(
            f"selected_model is {architecture!r}, not one of {', '.join(_RENAMED)}",
            culprit="selected_model",
        )
    feature_count = _whole(arguments, "descriptor_size")
    names = tuple(feature_names or PUBLISHED_FEATURE_NAMES)
    means = np.asarray(data_stat["mean"], dtype=np.float64)
    deviations = np.asarray(data_stat["std"], dtype=np.float64)
    for culprit, length in (
        ("feature_names", len(names)),
        ("mean", means.size),
        ("std", deviations.size),
    ):
        if length != feature_count:
            raise InvalidInputError(
                f"{culprit} has {length} entries, but descriptor_size is {feature_count}",
                culprit=culprit,
            )
    # A published window_size counts the forecast in.
    ahead = _whole(arguments, "forecast_size", 0)
    window_frames = _whole(arguments, "window_size") - ahead
    if window_frames < 1:
        raise InvalidInputError(
            f"window_size {window_frames + ahead} leaves no window before a forecast of {ahead}",
            culprit="window_size",
        )
    config = PredictorConfig(
        architecture=architecture,
        shape=NetworkShape(
            feature_count=feature_count,
            hidden_size=_whole(arguments, "hidden_size"),
            num_layers=_whole(arguments, "num_layers"),
            nhead=_whole(arguments, "nhead", 1),
            dim_feedforward=_whole(arguments, "dim_feedforward", 1),
            dropout=float(arguments.get("dropout", 0.0)),
            dim_pos_encoding=max(_whole(arguments, "dim_pos_encoding", 0), 0),
            mask="published",
        ),
        window_frames=window_frames,
        forecast_frames=max(ahead, 1),
        feature_names=names,
        means=tuple(means.tolist()),
        standard_deviations=tuple(deviations.tolist()),
        sample_rate_hertz=_whole(arguments, "sr", PUBLISHED_SAMPLE_RATE_HERTZ),
        hop_length_samples=_whole(arguments, "hop_length", PUBLISHED_HOP_LENGTH_SAMPLES),
        rollout=rollout,
        training={name: str(value) for name, value in sorted(arguments.items())},
    )
    state = dict(_renamed(checkpoint["state_dict"], _RENAMED[architecture]))
    return config.to_json(), state


def _hyper_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the checkpoint, which are a mapping or a Namespace, under "config" or bare."""
    saved: Any = checkpoint.get("hyper_parameters", {})
    if isinstance(saved, Mapping):
        saved = saved.get("config", saved)
    return dict(saved) if isinstance(saved, Mapping) else dict(getattr(saved, "__dict__", {}))


def _whole(arguments: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = arguments.get(name, default)
    try:
        return int(str(value))
    except ValueError as error:
        raise InvalidInputError(
            f"{name} of the published model is {value!r}, not a whole number", culprit=name
        ) from error


def _renamed(
    state: Mapping[str, Tensor], prefixes: tuple[tuple[str, str | None], ...]
) -> "list[tuple[str, Tensor]]":
    renamed = []
    for name, tensor in state.items():
        old, new = next(((o, n) for o, n in prefixes if name.startswith(o)), ("", ""))
        if new is not None:
            renamed.append((new + name.removeprefix(old), tensor.detach().clone().contiguous()))
    return renamed
