"""The generators of UNAGAN, from noise to mel spectrograms (Liu et al., Interspeech 2020).

The recurrent blocks start from normally drawn states. These are an argument of `forward`, never
drawn inside it, and every item's noise comes from its own seed on the CPU: so a seed means one
sound, whatever the device and whatever else is in the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, Self, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from services.errors import CorruptObjectError, InvalidInputError
from services.learning.loading import filled, refuse_absurd_sizes
from services.synth.mel import MelSettings
from services.synth.unagan.blocks import (
    KERNEL_SIZE,
    LEAKY_SLOPE,
    BodyBlock,
    RecurrentConvolution,
)
from services.synth.unagan.wandering import wandering

Variant = Literal["hierarchical", "nonhierarchical"]
NONHIERARCHICAL_DILATIONS = (2, 4)


@dataclass(frozen=True)
class UnaganSettings:
    """What the networks look like; the defaults are the published ones."""

    variant: Variant = "hierarchical"
    """Whether body and head grow in steps, or noise comes at the rate of the frames."""
    z_dim: int = 20
    """Channels of the noise."""
    z_scale_factors: tuple[int, ...] = (2, 2, 2, 2)
    """Upsampling of each step; without effect in the non-hierarchical variant."""
    middle_dim: int = 512
    """Width of all blocks, of discriminator and encoder too."""
    num_groups: int = 4
    """Groups of the group norms and of the grouped convolutions."""
    slow_channels: int = 0
    """Channels of the noise that wander, or all if it has fewer; the others are new in each column,
    as all are as published."""
    slow_seconds: float = 4.0
    """How long the wandering channels remember."""
    mel: MelSettings = field(default_factory=MelSettings)
    """The mel spectrograms that it learns and sings."""

    def __post_init__(self) -> None:
        refuse_absurd_sizes(self)
        if self.variant not in get_args(Variant):
            raise InvalidInputError(
                f"variant {self.variant!r}: UNAGAN is one of {', '.join(get_args(Variant))}",
                culprit="variant",
            )
        if self.z_dim < 1 or self.middle_dim < 1 or self.num_groups < 1:
            raise InvalidInputError("z_dim, middle_dim and num_groups must be positive")
        if not self.z_scale_factors or min(self.z_scale_factors) < 1:
            raise InvalidInputError(
                f"z_scale_factors {list(self.z_scale_factors)}: positive whole numbers wanted",
                culprit="z_scale_factors",
            )
        if self.slow_channels < 0:
            raise InvalidInputError("slow_channels must not be negative", culprit="slow_channels")
        if not 0 < self.slow_seconds < math.inf:
            raise InvalidInputError(
                f"slow_seconds {self.slow_seconds} is not a length of time", culprit="slow_seconds"
            )
        if self.middle_dim % self.num_groups:
            raise InvalidInputError(
                f"middle_dim {self.middle_dim} cannot be parted into {self.num_groups} groups",
                culprit="num_groups",
            )

    @property
    def feat_dim(self) -> int:
        """Mel channels."""
        return self.mel.n_mels

    @property
    def frames_per_z(self) -> int:
        """Mel frames that one column of noise becomes."""
        return prod(self.z_scale_factors) if self.variant == "hierarchical" else 1

    def shaped(self, white: Tensor) -> Tensor:
        """White noise (B, z_dim, T) on the CPU as the generator wants it, of the same shape."""
        column_seconds = self.frames_per_z * self.mel.hop_length / self.mel.sample_rate_hertz
        channels = min(self.slow_channels, self.z_dim)
        return wandering(white, channels, self.slow_seconds / column_seconds)

    def to_config(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {
            "variant": self.variant,
            "feat_dim": self.feat_dim,
            "z_dim": self.z_dim,
            "z_scale_factors": list(self.z_scale_factors),
            "middle_dim": self.middle_dim,
            "num_groups": self.num_groups,
            "slow_channels": self.slow_channels,
            "slow_seconds": self.slow_seconds,
            "mel": self.mel.to_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads what to_config wrote; InvalidInputError names what is missing or cannot be."""
        try:
            settings = cls(
                variant=config["variant"],
                z_dim=int(config["z_dim"]),
                z_scale_factors=tuple(int(factor) for factor in config["z_scale_factors"]),
                middle_dim=int(config["middle_dim"]),
                num_groups=int(config["num_groups"]),
                # Configs of former versions and published ones know only white noise.
                slow_channels=int(config.get("slow_channels", 0)),
                slow_seconds=float(config.get("slow_seconds", cls.slow_seconds)),
                mel=MelSettings.from_config(config["mel"]),
            )
        except KeyError as missing:
            raise InvalidInputError(
                f"the UNAGAN config lacks {missing}", culprit=str(missing.args[0])
            ) from missing
        if int(config.get("feat_dim", settings.feat_dim)) != settings.feat_dim:
            raise InvalidInputError(
                f"feat_dim is {config['feat_dim']}, but the mel settings have "
                f"{settings.feat_dim} mels",
                culprit="feat_dim",
            )
        return settings


@dataclass(frozen=True, eq=False)
class Noise:
    """All that is random in a generation: `z` (B, z_dim, T), `states` each (2, B, width)."""

    z: Tensor
    states: list[Tensor]


class Generator(nn.Module, ABC):
    """Sings z-scored log-mels from noise."""

    def __init__(self, settings: UnaganSettings) -> None:
        super().__init__()
        self.settings = settings

    @property
    @abstractmethod
    def recurrent_blocks(self) -> int:
        """How many initial states `forward` wants."""

    @abstractmethod
    def forward(self, z: Tensor, states: Sequence[Tensor]) -> Tensor:
        """Noise (B, z_dim, T) to z-scored log-mels (B, feat_dim, T * frames_per_z).

        `states` holds one (2, B, middle_dim) per recurrent block, in the order of the blocks.
        """

    def draw_states(self, batch: int, generator: torch.Generator) -> list[Tensor]:
        """Initial states from the normal distribution, on the CPU, as `forward` wants them."""
        shape = (2, batch, self.settings.middle_dim)
        return [torch.randn(shape, generator=generator) for _ in range(self.recurrent_blocks)]

    def draw(self, frames: int, seeds: Sequence[int]) -> Noise:
        """Noise for one item a seed, each of at least `frames` frames, on the CPU."""
        columns = -(-frames // self.settings.frames_per_z)
        zs, states = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            zs.append(torch.randn((1, self.settings.z_dim, columns), generator=generator))
            states.append(self.draw_states(1, generator))
        return Noise(
            self.settings.shaped(torch.cat(zs)),
            [torch.cat(block, dim=1) for block in zip(*states, strict=True)],
        )


class HierarchicalGenerator(Generator):
    """Body and head are upsampled side by side; each step refines both."""

    def __init__(self, settings: UnaganSettings) -> None:
        super().__init__(settings)
        width, groups = settings.middle_dim, settings.num_groups
        steps = len(settings.z_scale_factors)
        self.blocks = nn.ModuleList(
            BodyBlock(channels, width, groups) for channels in [settings.z_dim] + [width] * steps
        )
        self.heads = nn.ModuleList(
            nn.Conv1d(width, settings.feat_dim, KERNEL_SIZE, padding=1) for _ in range(steps + 1)
        )

    @property
    def recurrent_blocks(self) -> int:
        """One a block."""
        return len(self.blocks)

    def forward(self, z: Tensor, states: Sequence[Tensor]) -> Tensor:
        """See Generator.forward."""
        body = self.blocks[0](z, states[0])
        mel: Tensor = self.heads[0](body)
        steps = zip(
            self.settings.z_scale_factors, self.blocks[1:], self.heads[1:], states[1:], strict=True
        )
        for factor, block, head, state in steps:
            body = functional.interpolate(body, scale_factor=factor, mode="nearest")
            mel = functional.interpolate(mel, scale_factor=factor, mode="nearest")
            body = body + block(body, state)
            mel = mel + head(body)
        return mel


class NonhierarchicalGenerator(Generator):
    """Noise at the rate of the frames, through two recurrent convolutions."""

    def __init__(self, settings: UnaganSettings) -> None:
        super().__init__(settings)
        width, groups = settings.middle_dim, settings.num_groups
        self.conv_in = nn.Conv1d(settings.z_dim, width, KERNEL_SIZE, padding=1)
        self.norm = nn.GroupNorm(groups, width)
        self.blocks = nn.ModuleList(
            RecurrentConvolution(width, groups, dilation) for dilation in NONHIERARCHICAL_DILATIONS
        )
        self.head = nn.Conv1d(width, settings.feat_dim, KERNEL_SIZE, padding=1)

    @property
    def recurrent_blocks(self) -> int:
        """One a recurrent convolution."""
        return len(self.blocks)

    def forward(self, z: Tensor, states: Sequence[Tensor]) -> Tensor:
        """See Generator.forward."""
        x = functional.leaky_relu(self.norm(self.conv_in(z)), LEAKY_SLOPE)
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, state)
        mel: Tensor = self.head(x)
        return mel


def build_generator(settings: UnaganSettings) -> Generator:
    """The generator of the settings' variant, freshly initialised."""
    if settings.variant == "hierarchical":
        return HierarchicalGenerator(settings)
    return NonhierarchicalGenerator(settings)


@dataclass(frozen=True, eq=False)
class Unagan:
    """A generator with the statistics of its corpus; `mean`, `std`: (feat_dim,) on its device."""

    settings: UnaganSettings
    generator: Generator
    mean: Tensor
    std: Tensor

    @torch.inference_mode()
    def sing(self, frames: int, seeds: Sequence[int]) -> Tensor:
        """Log-mels (len(seeds), feat_dim, frames) of peak-normalised sound, one item a seed.

        In one pass, for a few seconds in a training; `generation.singing` needs less memory.
        """
        noise = self.generator.draw(frames, seeds)
        device = self.mean.device
        states = [state.to(device) for state in noise.states]
        # Unless told so, cuDNN may choose by a race, and sums of another order differ in last bits.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            mel: Tensor = self.generator(noise.z.to(device), states)[..., :frames]
        return mel * self.std[:, None] + self.mean[:, None]

    def to(self, device: torch.device | str) -> "Unagan":
        """The same model on a device."""
        return Unagan(
            self.settings, self.generator.to(device), self.mean.to(device), self.std.to(device)
        )


def load_generator(config: Mapping[str, Any], weights: bytes) -> Unagan:
    """A model ready to sing, on the CPU, from config.json and model.safetensors.

    Raises InvalidInputError for a config that lacks something, and CorruptObjectError for
    weights that do not fit it.
    """
    settings = UnaganSettings.from_config(config)
    try:
        generator = filled(lambda: build_generator(settings), load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObjectError(f"the weights do not fit their config: {error}") from error
    return Unagan(
        settings,
        generator.eval().requires_grad_(False),
        _statistic(config, "mean", settings.feat_dim),
        _statistic(config, "std", settings.feat_dim),
    )


def _statistic(config: Mapping[str, Any], name: str, length: int) -> Tensor:
    values = torch.tensor(config.get(name, []), dtype=torch.float32)
    if values.shape != (length,):
        raise InvalidInputError(
            f"{name} of the UNAGAN config must hold {length} numbers, one a mel band", culprit=name
        )
    return values
