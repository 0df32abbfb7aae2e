"""The networks of an UNAGAN in training (Liu et al., Interspeech 2020)."""

from dataclasses import dataclass

import torch
from torch import nn

from services.synth.unagan.discriminator import Discriminator
from services.synth.unagan.encoder import Encoder
from services.synth.unagan.generator import Generator, build_generator
from services.synth.unagan.training_settings import UnaganTraining


@dataclass(frozen=True, eq=False)
class Networks:
    """All that learn."""

    generator: Generator
    discriminator: Discriminator
    encoder: Encoder | None
    """Where there are cycles."""

    def by_name(self) -> dict[str, nn.Module]:
        """Those that there are."""
        networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
        }
        return networks | ({"encoder": self.encoder} if self.encoder else {})


def draw_networks(training: UnaganTraining, seed: int, device: torch.device) -> Networks:
    """Networks whose weights follow from the seed, the same on every device.

    They are drawn on the CPU, without moving the caller's random state.
    """
    settings = training.networks
    mels, width = settings.feat_dim, settings.middle_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(settings).to(device)
        discriminator = Discriminator(mels, width).to(device)
        encoder = (
            Encoder(mels, settings.z_dim, settings.z_scale_factors, width).to(device)
            if training.cycle
            else None
        )
    return Networks(generator, discriminator, encoder)
