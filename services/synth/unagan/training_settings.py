"""How an UNAGAN is trained: every choice by name, those of the published script as defaults."""

from dataclasses import asdict, dataclass, field
from typing import Any

from services.errors import InvalidInputError
from services.synth.corpus.augmentation import Augmentation
from services.synth.training.precision import Precision
from services.synth.training.schedule import Schedule
from services.synth.unagan.generator import UnaganSettings


@dataclass(frozen=True)
class UnaganTraining:
    """How to train. Raises InvalidInputError for values that cannot work together."""

    networks: UnaganSettings = field(default_factory=UnaganSettings)
    """What the networks look like."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How crops of the sound, whose peak is 1, differ from it before their mels are made: a mel
    does not show polarity."""
    precision: Precision = field(default_factory=Precision)
    """How precisely is computed."""
    steps: int | None = None
    """Updates in all; where the preset names none, they have to be given."""
    cycle: bool = True
    """Whether an encoder closes the cycles; the hierarchical variant only."""
    segment_seconds: float = 10.0
    """Length of the crops; rounded up to whole columns of noise."""
    batch_size: int = 5
    """Crops a step, of all devices together."""
    learning_rate: float = 1e-4
    """Of Adam, for all networks."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls as a cosine over all steps."""
    learning_rate_floor: float = 0.0
    """Share of the learning rate that a cosine ends at."""
    gamma: float = 1.0
    """BEGAN's wanted ratio of generated to real redrawing loss."""
    lambda_k: float = 0.01
    """How fast BEGAN's k follows."""
    init_k: float = 0.0
    """BEGAN's first k."""
    lambda_cycle: float = 1.0
    """Weight of both cycle losses."""
    moments_weight: float = 0.0
    """What the distance of the generator's moments from the corpus's counts; none as published."""
    max_gradient_norm: float = 3.0
    """Gradients of each network are clipped to this norm."""
    average_decay: float = 0.0
    """How slowly the averaged weights, which are then the model, follow; 0 means no average."""
    validation_share: float = 0.1
    """Share of source files kept back."""
    validation_figure: str = "convergence"
    """The figure of `validate` by which the best step is chosen: lower is better."""

    def __post_init__(self) -> None:
        if self.cycle and self.networks.variant != "hierarchical":
            raise InvalidInputError(
                "cycle losses need the hierarchical variant: set cycle to false", culprit="cycle"
            )
        for name in ("segment_seconds", "batch_size", "learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name} must be positive", culprit=name)
        for name in ("learning_rate_floor", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be from 0 to below 1", culprit=name)
        for name in ("gamma", "lambda_k", "lambda_cycle", "moments_weight"):
            if not getattr(self, name) >= 0:
                raise InvalidInputError(f"{name} must not be negative", culprit=name)
        if not 0 <= self.init_k <= 1:
            raise InvalidInputError("init_k must be from 0 to 1", culprit="init_k")
        if self.schedule == "cosine" and not self.steps:
            raise InvalidInputError(
                "a cosine must know the number of steps: give steps", culprit="steps"
            )

    @property
    def segment_frames(self) -> int:
        """Mel frames of a crop: whole columns of noise, at least one."""
        mel, columns = self.networks.mel, self.networks.frames_per_z
        frames = self.segment_seconds * mel.sample_rate_hertz / mel.hop_length
        return max(1, -(-round(frames) // columns)) * columns

    def to_config(self) -> dict[str, Any]:
        """The settings of training, without those of the networks, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "networks"}
