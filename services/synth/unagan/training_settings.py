"""How an UNAGAN is trained: every choice by name, those of the published script as defaults."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from services.errors import InvalidInputError, SettingsMismatchError
from services.learning.bounds import refuse_beyond_bounds, refuse_unknown
from services.learning.precision import Precision
from services.learning.schedule import Schedule
from services.synth.corpus.augmentation import Augmentation
from services.synth.unagan.generator import UnaganSettings

ValidationFigure = Literal[
    "convergence",
    "mel_distance",
    "generator",
    "discriminator",
    "real",
    "generated",
    "noise_cycle",
    "mel_cycle",
]
"""What `validate` gives; the last two with cycles only."""
CYCLE_FIGURES = ("noise_cycle", "mel_cycle")


@dataclass(frozen=True)
class UnaganTraining:
    """How to train.

    Raises InvalidInputError naming a value that cannot be, SettingsMismatchError for values that
    cannot work together.
    """

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
    validation_seconds: float = 300.0
    """How much of them is judged by in one validation, at least a crop; taken evenly."""
    validation_figure: ValidationFigure = "convergence"
    """The figure of `validate` by which the best step is chosen: lower is better."""

    def __post_init__(self) -> None:
        refuse_unknown("schedule", self.schedule, get_args(Schedule))
        refuse_unknown("validation_figure", self.validation_figure, get_args(ValidationFigure))
        refuse_beyond_bounds(
            self,
            positive=(
                "segment_seconds",
                "batch_size",
                "learning_rate",
                "max_gradient_norm",
                "validation_seconds",
            ),
            not_negative=("gamma", "lambda_k", "lambda_cycle", "moments_weight"),
            below_one=("learning_rate_floor", "average_decay"),
        )
        if not 0 <= self.init_k <= 1:
            raise InvalidInputError(
                f"init_k is {self.init_k}: it must be from 0 to 1", culprit="init_k"
            )
        if self.cycle and self.networks.variant != "hierarchical":
            raise SettingsMismatchError(
                "UNAGAN: cycle losses need the hierarchical variant: set cycle to false",
                culprit="cycle",
            )
        if self.validation_figure in CYCLE_FIGURES and not self.cycle:
            raise SettingsMismatchError(
                f"UNAGAN: without cycles there is no {self.validation_figure} to validate by",
                culprit="validation_figure",
            )
        if self.schedule == "cosine" and not self.steps:
            raise SettingsMismatchError(
                "UNAGAN: a cosine must know the number of steps: give steps", culprit="steps"
            )

    @property
    def segment_frames(self) -> int:
        """Mel frames of a crop: whole columns of noise, at least one."""
        mel, columns = self.networks.mel, self.networks.frames_per_z
        frames = self.segment_seconds * mel.sample_rate_hertz / mel.hop_length
        return max(1, -(-round(frames) // columns)) * columns

    @property
    def validation_crops(self) -> int:
        """How many crops are judged by at most."""
        mel = self.networks.mel
        crop_seconds = self.segment_frames * mel.hop_length / mel.sample_rate_hertz
        return max(1, int(self.validation_seconds / crop_seconds))

    def to_config(self) -> dict[str, Any]:
        """The settings of training, without those of the networks, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "networks"}
