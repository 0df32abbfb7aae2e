"""What a trained predictor carries beside its weights: its config.json."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from services.errors import CorruptObjectError, InvalidInputError
from services.learning.bounds import refuse_beyond_bounds
from services.predictor.deltas import REACH, names_with_deltas, statics_of
from services.predictor.networks.network import NetworkShape, Rollout

Deltas = Literal["predicted", "computed"]

_POSITIVE = ("window_frames", "forecast_frames", "sample_rate_hertz", "hop_length_samples")
_POSITIVE_SIZES = (
    "feature_count",
    "hidden_size",
    "num_layers",
    "nhead",
    "dim_feedforward",
    "attention_frames",
    "mixtures",
)


@dataclass(frozen=True)
class PredictorConfig:
    """Everything that prediction needs to know of a model but the weights."""

    architecture: str
    """A key of `loading.ARCHITECTURES`."""
    shape: NetworkShape
    """Sizes of the network."""
    window_frames: int
    """Frames that it looks at; no forecast in them."""
    forecast_frames: int
    """Frames that it was trained to give at once."""
    feature_names: tuple[str, ...]
    """Columns, in the order of the network."""
    means: tuple[float, ...]
    """Mean of each feature over the training part."""
    standard_deviations: tuple[float, ...]
    """Standard deviation of each; 0 where it never changed."""
    sample_rate_hertz: int
    """Rate of the descriptors."""
    hop_length_samples: int
    """Hop of the descriptors."""
    deltas: Deltas = "predicted"
    """`computed`: the features are static coefficients, and their deltas follow from them."""
    rollout: Rollout = "sliding"
    """How it goes on beyond what it was trained for."""
    training: dict[str, Any] = field(default_factory=dict)
    """The settings that it was trained with, for the record."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(self), mode="json")
        return plain

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "PredictorConfig":
        """Reads what `to_json` wrote; other keys are left alone.

        Raises CorruptObjectError, naming the key, for what is missing, does not fit, or cannot be.
        """
        try:
            read = TypeAdapter(cls).validate_python(config)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise CorruptObjectError(
                f"config.json of a predictor: {key}: {first['msg']}", culprit=key
            ) from error
        for key in ("feature_names", "means", "standard_deviations"):
            if len(getattr(read, key)) != read.shape.feature_count:
                raise CorruptObjectError(
                    f"config.json of a predictor: {key} has {len(getattr(read, key))} entries for "
                    f"{read.shape.feature_count} features",
                    culprit=key,
                )
        read._refuse_impossible_values()
        if read.deltas == "computed":
            read._refuse_other_than_statics()
        return read

    def _refuse_impossible_values(self) -> None:
        """Raises CorruptObjectError, naming the key, for a number that no training writes."""
        for part, place, bounds in (
            (self, "", {"positive": _POSITIVE}),
            (
                self.shape,
                "shape.",
                {
                    "positive": _POSITIVE_SIZES,
                    "not_negative": ("dim_pos_encoding",),
                    "below_one": ("dropout",),
                },
            ),
        ):
            try:
                refuse_beyond_bounds(part, **bounds)
            except InvalidInputError as error:
                key = f"{place}{error.culprit}"
                raise CorruptObjectError(
                    f"config.json of a predictor: {place}{error.message}", culprit=key
                ) from error
        if self.shape.num_encoder_layers is not None and self.shape.num_encoder_layers < 1:
            raise _corrupt("shape.num_encoder_layers", "must be positive, or null")
        if not np.isfinite(self.means).all():
            raise _corrupt("means", "must be finite")
        deviations = np.asarray(self.standard_deviations)
        if not (np.isfinite(deviations) & (deviations >= 0)).all():
            raise _corrupt("standard_deviations", "must be finite, and 0 or more")
        if len(set(self.feature_names)) < len(self.feature_names):
            raise _corrupt("feature_names", "must be all different")

    def _refuse_other_than_statics(self) -> None:
        """Raises CorruptObjectError unless deltas can be computed from features and window."""
        if self.feature_names != statics_of(names_with_deltas(self.feature_names)):
            raise CorruptObjectError(
                "config.json of a predictor: deltas are computed from mfcc0, mfcc1, … in this "
                f"order, not from {', '.join(self.feature_names)}",
                culprit="feature_names",
            )
        if self.window_frames < REACH:
            raise CorruptObjectError(
                f"config.json of a predictor: deltas look {REACH} frames back, window_frames is "
                f"{self.window_frames}",
                culprit="window_frames",
            )

    @property
    def track_feature_names(self) -> tuple[str, ...]:
        """Columns of the tracks that it continues: the network's own, or with their deltas."""
        if self.deltas == "computed":
            return names_with_deltas(self.feature_names)
        return self.feature_names

    @property
    def scales(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Standard deviations, with 1 where a feature never changed, so that division is safe."""
        deviations = np.asarray(self.standard_deviations)
        return np.where(deviations > 0, deviations, 1.0)


def _corrupt(key: str, wanted: str) -> CorruptObjectError:
    return CorruptObjectError(f"config.json of a predictor: {key} {wanted}", culprit=key)
