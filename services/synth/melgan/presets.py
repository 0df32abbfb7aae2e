"""Named ways to train a MelGAN."""

from collections.abc import Callable, Mapping

from services.errors import NotFoundError
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings
from services.synth.melgan.training import MelGanTraining


def preset(name: str, mel: MelSettings | None = None) -> MelGanTraining:
    """The training of that name, for sound of those mel settings (44.1 kHz if none are given).

    Raises NotFoundError naming the presets there are.
    """
    if name not in PRESETS:
        raise NotFoundError(
            f"no MelGAN preset {name!r}; there are {', '.join(PRESETS)}", culprit=name
        )
    return PRESETS[name](mel or MelSettings())


def _published(mel: MelSettings) -> MelGanTraining:
    return MelGanTraining(generator=MelGanSettings(mel=mel))


def _demo_cpu(mel: MelSettings) -> MelGanTraining:
    """Learns within two minutes on two CPU cores: narrow, and taught by spectra.

    The discriminator would cost more than it teaches in so short a time: it joins only where
    somebody trains on for long.
    """
    return MelGanTraining(
        generator=MelGanSettings(
            variant="original",
            ngf=16,
            n_residual_layers=1,
            ratios=(8, 8, 4),
            noise_channels=32,
            mel=mel,
        ),
        discriminator=DiscriminatorSettings(ndf=4, max_channels=64),
        batch_size=8,
        learning_rate=3e-3,
        betas=(0.8, 0.99),
        mel_weight=1.0,
        stft_weight=1.0,
        adversarial_from_step=5000,
        fit_to_data=True,
    )


PRESETS: Mapping[str, Callable[[MelSettings], MelGanTraining]] = {
    "published": _published,
    "demo-cpu": _demo_cpu,
}
