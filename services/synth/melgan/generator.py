"""The MelGAN generator: mel spectrogram to waveform (Kumar et al., 2019, arXiv:1910.06711).

Two forms: `original` as in the paper, and `gru`, which passes the whole spectrogram through a
bidirectional recurrent layer before the first upsampling.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from services.errors import CorruptObjectError, InvalidInputError, SettingsMismatchError
from services.learning.loading import filled, refuse_absurd_sizes
from services.synth.mel import MelSettings
from services.synth.melgan.excitation import Excitation
from services.synth.recurrence import BidirectionalGRU

Variant = Literal["original", "gru"]

LEAK = 0.2
EDGE_KERNEL = 7


@dataclass(frozen=True)
class MelGanSettings:
    """The form and width of a generator, and the mel spectrogram that it was made for.

    Raises SettingsMismatchError unless the product of the ratios is the hop, InvalidInputError for
    sizes that no network has.
    """

    variant: Variant = "gru"
    """`original`, or `gru` as the published system trains."""
    ngf: int = 32
    """Channels at the full sample rate; each upsampling before that has twice as many."""
    n_residual_layers: int = 3
    """Residual blocks behind each upsampling; block j is dilated by 3^j."""
    ratios: tuple[int, ...] = (8, 8, 2, 2)
    """Upsampling factors, in order."""
    mel: MelSettings = field(default_factory=MelSettings)
    """The input's settings."""
    excitation: bool = False
    """Whether it hears a waveform with plausible phases beside the mel; not in the published form.
    A generator that hears nothing but a steady spectrum repeats itself every hop, which buzzes at
    the frame rate."""

    def __post_init__(self) -> None:
        refuse_absurd_sizes(self)
        if self.variant not in get_args(Variant):
            raise SettingsMismatchError(
                f"MelGAN: variant {self.variant!r} is neither of {', '.join(get_args(Variant))}"
            )
        if self.ngf < 1 or self.n_residual_layers < 0 or any(ratio < 2 for ratio in self.ratios):
            raise SettingsMismatchError(
                f"MelGAN: ngf {self.ngf}, n_residual_layers {self.n_residual_layers} and ratios "
                f"{list(self.ratios)} must be positive, and each ratio at least 2"
            )
        if math.prod(self.ratios) != self.mel.hop_length:
            raise SettingsMismatchError(
                f"MelGAN: ratios {list(self.ratios)} multiply to {math.prod(self.ratios)}, but the "
                f"hop is {self.mel.hop_length} samples"
            )

    @property
    def n_mels(self) -> int:
        """Number of mel bands that go in."""
        return self.mel.n_mels

    @property
    def shortest_frames(self) -> int:
        """Fewest frames whose edges can still be reflected, before and behind each upsampling."""
        widest_dilation = 3 ** max(self.n_residual_layers - 1, 0)
        shortest = EDGE_KERNEL // 2 + 1
        upsampled = 1
        for ratio in self.ratios:
            upsampled *= ratio
            shortest = max(shortest, widest_dilation // upsampled + 1)
        return shortest

    def to_config(self) -> dict[str, Any]:
        """These settings as JSON-able values."""
        return {
            "variant": self.variant,
            "ngf": self.ngf,
            "n_residual_layers": self.n_residual_layers,
            "ratios": list(self.ratios),
            "excitation": self.excitation,
            "mel": self.mel.to_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "MelGanSettings":
        """The settings in a model's config, whatever else it holds.

        Raises SettingsMismatchError naming what is absent or does not agree.
        """
        try:
            return cls(
                variant=config["variant"],
                ngf=int(config["ngf"]),
                n_residual_layers=int(config["n_residual_layers"]),
                ratios=tuple(int(ratio) for ratio in config["ratios"]),
                excitation=bool(config.get("excitation", False)),
                mel=MelSettings.from_config(config["mel"]),
            )
        except KeyError as absent:
            raise SettingsMismatchError(f"MelGAN: the config has no {absent}") from absent


class ResidualBlock(nn.Module):
    """A dilated convolution and a pointwise one, beside a pointwise shortcut."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(LEAK)
        self.dilated = weight_norm(
            nn.Conv1d(
                channels,
                channels,
                kernel_size=3,
                dilation=dilation,
                padding=dilation,
                padding_mode="reflect",
            )
        )
        self.pointwise = weight_norm(nn.Conv1d(channels, channels, kernel_size=1))
        self.shortcut = weight_norm(nn.Conv1d(channels, channels, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, steps) to the same; steps must exceed the dilation."""
        inner = self.activation(self.dilated(self.activation(x)))
        return cast(Tensor, self.shortcut(x) + self.pointwise(inner))


class Upsampling(nn.Module):
    """A transposed convolution that multiplies time by `ratio` and halves the channels.

    Where it is excited, each of its steps also hears the `excited_by` samples of that step.
    """

    def __init__(
        self, in_channels: int, ratio: int, n_residual_layers: int, excited_by: int = 0
    ) -> None:
        super().__init__()
        self.transposed = weight_norm(
            nn.ConvTranspose1d(
                in_channels,
                in_channels // 2,
                kernel_size=2 * ratio,
                stride=ratio,
                padding=ratio // 2 + ratio % 2,
                output_padding=ratio % 2,
            )
        )
        self.excited_by = excited_by
        if excited_by:
            self.excited = weight_norm(nn.Conv1d(excited_by, in_channels // 2, kernel_size=1))
        self.residuals = nn.Sequential(
            *(ResidualBlock(in_channels // 2, 3**j) for j in range(n_residual_layers))
        )

    def forward(self, x: Tensor, wave: Tensor | None = None) -> Tensor:
        """(B, in_channels, steps) to (B, in_channels / 2, steps * ratio).

        `wave`, (B, 1, steps * ratio * excited_by), is wanted where it is excited.
        """
        x = self.transposed(x)
        if wave is not None:
            steps = wave.reshape(len(wave), -1, self.excited_by)
            x = x + self.excited(steps.mT)
        return cast(Tensor, self.residuals(x))


class Recurrence(nn.Module):
    """A bidirectional GRU whose two directions are added to what went in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rec = BidirectionalGRU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, steps) to the same."""
        both, _ = self.rec(x.transpose(1, 2))
        forwards, backwards = both.transpose(1, 2).chunk(2, dim=1)
        return cast(Tensor, x + forwards + backwards)


class Generator(nn.Module):
    """MelGAN's generator, with weight norm until `remove_weight_norm` folds it away."""

    def __init__(self, settings: MelGanSettings) -> None:
        super().__init__()
        self.settings = settings
        channels = settings.ngf * 2 ** len(settings.ratios)
        self.first = _edge_convolution(settings.n_mels, channels)
        self.recurrence = Recurrence(channels) if settings.variant == "gru" else nn.Identity()
        self.upsamplings = nn.ModuleList()
        samples = settings.mel.hop_length
        for ratio in settings.ratios:
            samples //= ratio
            excited_by = samples if settings.excitation else 0
            self.upsamplings.append(
                Upsampling(channels, ratio, settings.n_residual_layers, excited_by)
            )
            channels //= 2
        self.last = _edge_convolution(channels, 1)
        self.activation = nn.LeakyReLU(LEAK)
        self.excitation = Excitation(settings.mel) if settings.excitation else None

    def excite(
        self, mel: Tensor, seeds: Sequence[int], checkpoint: Callable[[], None] = lambda: None
    ) -> Tensor | None:
        """The excitation of `mel`, (B, n_mels, frames), for `forward`; or None.

        What is random in that of item i comes from `seeds[i]`, drawn on the CPU. `checkpoint` is
        called every some seconds of sound and raises to stop.
        """
        if self.excitation is None:
            return None
        turns = self.excitation.draw_turns(seeds).to(mel.device)
        return self.excite_from(mel, turns, checkpoint)

    def excite_from(
        self, mel: Tensor, turns: Tensor | None, checkpoint: Callable[[], None] = lambda: None
    ) -> Tensor | None:
        """The same from what `Excitation.draw_turns` gave, which is on the device of `mel`.

        Returns (B, hop_length, frames) float32: column t holds the samples of frame t, so that it
        is cut by frames like the mel.
        """
        if self.excitation is None or turns is None:
            return None
        waves: Tensor = self.excitation(mel, turns, checkpoint)
        return waves.reshape(len(waves), -1, self.settings.mel.hop_length).mT

    def forward(self, mel: Tensor, excitation: Tensor | None = None) -> Tensor:
        """Waveform of `mel`.

        Args:
            mel: (B, n_mels, frames) float32, log10 magnitudes as `MelSpectrogram` gives them.
            excitation: (B, hop_length, frames) float32 from `excite`, on the device of `mel`;
                None where the settings have none.

        Returns:
            (B, 1, frames * hop_length) float32 in (-1, 1).

        Raises:
            InvalidInputError: another number of bands, too few frames to reflect, or an
                excitation that is amiss.
        """
        if mel.ndim != 3 or mel.shape[1] != self.settings.n_mels:
            raise InvalidInputError(
                f"MelGAN: mel is {tuple(mel.shape)}, not (batch, {self.settings.n_mels}, frames)"
            )
        shortest = self.settings.shortest_frames
        if mel.shape[2] < shortest:
            raise InvalidInputError(
                f"MelGAN: {mel.shape[2]} frames are too few: at least {shortest} are needed"
            )
        if (excitation is None) == self.settings.excitation:
            wants = "wants an" if self.settings.excitation else "knows no"
            raise InvalidInputError(f"MelGAN: this generator {wants} excitation")
        wave = None if excitation is None else excitation.mT.flatten(1)[:, None]
        x = self.recurrence(self.activation(self.first(mel)))
        for upsampling in self.upsamplings:
            x = self.activation(upsampling(x, wave))
        # Half precision would round the samples themselves to 8 bits.
        with torch.autocast(x.device.type, enabled=False):
            x = self.last(x.float())
        return torch.tanh(x if wave is None else x + wave)

    def remove_weight_norm(self) -> Self:
        """Fold weight norm into plain weights, in place: the same function, faster."""
        for module in self.modules():
            if is_parametrized(module, "weight"):
                remove_parametrizations(module, "weight")
        return self


def vocode(generator: Generator, mel: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
    """The waveform of `mel`, the same samples each time on the same kind of device.

    Shapes, units and errors are those of `Generator.forward`; no gradient is kept. Where the
    settings have an excitation, that of item i comes from `seeds[i]`, 0 if none are given.
    """
    excitation = generator.excite(mel, seeds or [0] * len(mel))
    # Unless told so, cuDNN may choose by a race, and sums of another order differ in last bits.
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        return cast(Tensor, generator(mel, excitation))


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict that `module` would have without weight norm, on the CPU; it stays as it is."""
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        owner, _, _ = name.partition(".parametrizations.")
        if owner == name:
            state[name] = tensor
        else:
            state[f"{owner}.weight"] = cast(Tensor, module.get_submodule(owner).weight)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def save_generator(generator: Generator) -> bytes:
    """The weights as safetensors, weight norm folded; `generator` stays as it is."""
    return save(folded_state(generator))


def load_generator(config: Mapping[str, Any], weights: bytes) -> tuple[Generator, MelGanSettings]:
    """A generator ready to vocode, weight norm folded, from a model's config and weights.

    Raises SettingsMismatchError if the config is incomplete, InvalidInputError if it claims sizes
    that cannot be, CorruptObjectError if the weights are no safetensors or of another shape.
    """
    settings = MelGanSettings.from_config(config)
    try:
        generator = filled(lambda: Generator(settings).remove_weight_norm(), load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CorruptObjectError(f"MelGAN: the weights do not fit the config: {error}") from error
    return generator.eval(), settings


def _edge_convolution(in_channels: int, out_channels: int) -> nn.Conv1d:
    convolution = nn.Conv1d(
        in_channels, out_channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2, padding_mode="reflect"
    )
    return cast(nn.Conv1d, weight_norm(convolution))
