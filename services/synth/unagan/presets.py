"""Named ways to train an UNAGAN, as data."""

from collections.abc import Mapping
from dataclasses import replace

from services.errors import NotFoundError
from services.learning.precision import Precision
from services.synth.corpus.augmentation import Augmentation
from services.synth.mel import MelSettings
from services.synth.unagan.generator import UnaganSettings
from services.synth.unagan.training_settings import UnaganTraining

PRESETS: Mapping[str, UnaganTraining] = {
    # Both published ways train until somebody stops them, so steps must be given.
    "published-script": UnaganTraining(),
    "published-notebook": UnaganTraining(batch_size=10, learning_rate=1e-3),
    # Learns within two minutes on two CPU cores: narrow, and short crops, since the recurrent
    # blocks take their time per frame, hardly per item. In so few steps BEGAN's measure says more
    # about the discriminator than about the sound, and of the published losses alone all seeds sing
    # one frozen sound: the moments keep it moving, and wandering noise tells the seeds apart.
    "demo-cpu": UnaganTraining(
        networks=UnaganSettings(middle_dim=64, slow_channels=8),
        steps=420,
        segment_seconds=1.0,
        batch_size=8,
        learning_rate=1e-3,
        moments_weight=1.0,
        average_decay=0.99,
        validation_figure="mel_distance",
    ),
    # The same for an hour on one CPU; the model that lies in the repository.
    "small": UnaganTraining(
        networks=UnaganSettings(middle_dim=96, slow_channels=8),
        steps=2000,
        segment_seconds=1.0,
        batch_size=8,
        learning_rate=1e-3,
        schedule="cosine",
        learning_rate_floor=0.02,
        moments_weight=1.0,
        average_decay=0.995,
        validation_figure="mel_distance",
    ),
    # The published networks, with crops that fill a GPU. No value here was tuned.
    "single-gpu": UnaganTraining(
        augmentation=Augmentation(speed=0.03),
        precision=Precision(compute="bf16", tf32=True),
        steps=100_000,
        segment_seconds=5.0,
        batch_size=32,
        learning_rate=3e-4,
        schedule="cosine",
        learning_rate_floor=0.01,
        average_decay=0.999,
        validation_figure="mel_distance",
    ),
}
"""Each with the mel settings of 44.1 kHz."""


def preset(name: str, mel: MelSettings | None = None) -> UnaganTraining:
    """The training of that name, for sound of those mel settings (44.1 kHz if none are given).

    Raises NotFoundError naming the presets there are.
    """
    if name not in PRESETS:
        raise NotFoundError(
            f"no UNAGAN preset {name!r}; there are {', '.join(PRESETS)}", culprit=name
        )
    training = PRESETS[name]
    return replace(training, networks=replace(training.networks, mel=mel or MelSettings()))
