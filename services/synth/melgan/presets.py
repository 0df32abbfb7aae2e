"""Named ways to train a MelGAN, as data."""

from collections.abc import Mapping
from dataclasses import replace

from services.errors import NotFoundError
from services.learning.precision import Precision
from services.synth.corpus.augmentation import Augmentation
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings
from services.synth.melgan.training_settings import MelGanTraining

NARROW = MelGanSettings(
    variant="original", ngf=16, n_residual_layers=1, ratios=(8, 8, 4), excitation=True
)

PRESETS: Mapping[str, MelGanTraining] = {
    # Both published ways run for 3000 epochs, of as many steps as the files need to be seen once:
    # how long that is depends on the corpus, so steps must be given.
    "published-script": MelGanTraining(),
    # The notebook hands the script the script's own defaults.
    "published-notebook": MelGanTraining(),
    # Learns within two minutes on two CPU cores: narrow, and taught by spectra. The discriminator
    # would cost more than it teaches in so short a time: it joins only where somebody trains on.
    "demo-cpu": MelGanTraining(
        generator=NARROW,
        discriminator=DiscriminatorSettings(ndf=4, max_channels=64),
        steps=500,
        batch_size=8,
        learning_rate=3e-3,
        betas=(0.8, 0.99),
        schedule="cosine",
        learning_rate_floor=0.02,
        max_gradient_norm=10.0,
        mel_weight=15.0,
        stft_weight=5.0,
        adversarial_from_step=5000,
        fit_to_data=True,
    ),
    # Small enough to lie in a repository, and trained in half an hour on one CPU core.
    "small": MelGanTraining(
        generator=replace(NARROW, n_residual_layers=2),
        discriminator=DiscriminatorSettings(ndf=8, max_channels=128),
        augmentation=Augmentation(gain_decibels=6.0, polarity=True, speed=0.1),
        steps=4000,
        batch_size=8,
        learning_rate=2e-3,
        betas=(0.8, 0.99),
        schedule="cosine",
        learning_rate_floor=0.02,
        max_gradient_norm=10.0,
        mel_weight=15.0,
        stft_weight=5.0,
        adversarial_from_step=2500,
        fit_to_data=True,
        average_decay=0.999,
        validation_share=0.2,
    ),
    # The published width; spectra teach from the first step, the verdict joins when there is
    # something to judge. Nothing here was tuned: rates are what vocoders after MelGAN took, and
    # spectral weights those of `small`.
    "single-gpu": MelGanTraining(
        generator=MelGanSettings(variant="original", excitation=True),
        augmentation=Augmentation(gain_decibels=6.0),
        precision=Precision(compute="bf16", tf32=True),
        steps=400_000,
        batch_size=32,
        crop_samples=16384,
        learning_rate=2e-4,
        betas=(0.8, 0.99),
        schedule="cosine",
        learning_rate_floor=0.01,
        max_gradient_norm=10.0,
        mel_weight=15.0,
        stft_weight=5.0,
        adversarial_from_step=10_000,
        fit_to_data=True,
        average_decay=0.999,
    ),
}
"""Each with the mel settings of 44.1 kHz."""


def preset(name: str, mel: MelSettings | None = None) -> MelGanTraining:
    """The training of that name, for sound of those mel settings (44.1 kHz if none are given).

    Raises NotFoundError naming the presets there are.
    """
    if name not in PRESETS:
        raise NotFoundError(
            f"no MelGAN preset {name!r}; there are {', '.join(PRESETS)}", culprit=name
        )
    training = PRESETS[name]
    return replace(training, generator=replace(training.generator, mel=mel or MelSettings()))
