"""How a MelGAN is trained: every choice by name, the published ones as defaults."""

from dataclasses import dataclass, field
from typing import get_args

from services.errors import InvalidInputError, SettingsMismatchError
from services.learning.bounds import refuse_beyond_bounds, refuse_unknown
from services.learning.precision import Precision
from services.learning.schedule import Schedule
from services.synth.corpus.augmentation import Augmentation
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings


@dataclass(frozen=True)
class MelGanTraining:
    """How to train.

    Raises InvalidInputError naming a value that cannot be, SettingsMismatchError for values that
    cannot work together.
    """

    generator: MelGanSettings = field(default_factory=MelGanSettings)
    """What is trained."""
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    """What judges it."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How crops differ from the recordings."""
    precision: Precision = field(default_factory=Precision)
    """How precisely is computed."""
    steps: int | None = None
    """Updates in all; where the preset names none, they have to be given."""
    batch_size: int = 16
    """Crops a step, of all devices together."""
    crop_samples: int = 8192
    """Length of each; whole hops."""
    learning_rate: float = 1e-4
    """Of both Adam optimizers."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Of both Adam optimizers."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls as a cosine over all steps."""
    learning_rate_floor: float = 0.0
    """Share of the learning rate that a cosine ends at."""
    max_gradient_norm: float = 0.0
    """Norm that each network's gradients are clipped to; 0 means never, as published."""
    feature_weight: float = 10.0
    """What feature matching counts beside the verdict."""
    mel_weight: float = 0.0
    """What the distance of log-mel spectrograms counts; none in the published training."""
    stft_weight: float = 0.0
    """What the multi-resolution STFT distance counts; none in the published training."""
    adversarial_from_step: int = 0
    """The step that first asks the discriminator; before it, only mel and STFT distances teach."""
    fit_to_data: bool = False
    """Whether the first weights are scaled to the first crops; not so in the published training."""
    average_decay: float = 0.0
    """How slowly the averaged weights, which are then the model, follow; 0 means no average."""
    validation_share: float = 0.1
    """Share of source files kept back."""
    validation_seconds: float = 30.0
    """How much of them is listened to in one validation."""

    def __post_init__(self) -> None:
        refuse_unknown("schedule", self.schedule, get_args(Schedule))
        refuse_beyond_bounds(
            self,
            positive=("batch_size", "crop_samples", "learning_rate", "validation_seconds"),
            not_negative=(
                "max_gradient_norm",
                "feature_weight",
                "mel_weight",
                "stft_weight",
                "adversarial_from_step",
            ),
            below_one=("learning_rate_floor", "average_decay"),
        )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidInputError(
                f"betas are {self.betas}: both must be from 0 to below 1", culprit="betas"
            )
        hop = self.generator.mel.hop_length
        shortest = hop * self.generator.shortest_frames
        if self.crop_samples % hop or self.crop_samples < shortest:
            raise SettingsMismatchError(
                f"MelGAN: a crop of {self.crop_samples} samples is not of whole hops of {hop}, or "
                f"shorter than {shortest}",
                culprit="crop_samples",
            )
        if self.adversarial_from_step > 0 and not (self.mel_weight or self.stft_weight):
            raise SettingsMismatchError(
                "MelGAN: without a mel or STFT weight nothing teaches the generator before step "
                f"{self.adversarial_from_step}",
                culprit="adversarial_from_step",
            )
        if self.schedule == "cosine" and not self.steps:
            raise SettingsMismatchError(
                "MelGAN: a cosine must know the number of steps: give steps", culprit="steps"
            )
