"""Reads what the published MelGAN training leaves behind: state dicts and their arguments.

The weights say nearly everything about the form, so it is taken from them; the arguments add the
sample rate, and where they contradict the weights the two are refused, for then they belong to
different runs. Published state dicts number their layers; ours name them.
"""

import ast
import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import Discriminator, DiscriminatorSettings
from services.synth.melgan.generator import Generator, MelGanSettings

PARALLEL_PREFIX = "module."
DISCRIMINATOR_KEY = re.compile(r"model\.disc_(\d+)\.model\.layer_(\d+)\.(?:[01]\.)?(\w+)")
WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
RESIDUAL = {"block.2": "dilated", "block.4": "pointwise", "shortcut": "shortcut"}


def read_generator(arguments: Mapping[str, object], published: Mapping[str, Tensor]) -> Generator:
    """The generator of a published run, weight norm kept.

    Args:
        arguments: as `args.yml` or a run's config holds them; `sampling_rate` is needed.
        published: the state dict, with or without DataParallel's prefix.

    Raises:
        InvalidInputError: no `sampling_rate`, or weights that are no published generator.
        SettingsMismatchError: arguments and weights contradict each other.
    """
    state = _unwrapped(published)
    kinds = _generator_layers(state)
    settings = _generator_settings(arguments, state, kinds)
    names = _generator_names(settings)
    if len(names) != len(kinds):
        raise InvalidInputError(f"MelGAN: {len(kinds)} layers of weights, not {len(names)}")
    ours = dict(zip(kinds, names, strict=True))
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        _, number, rest = name.split(".", 2)
        path, _, parameter = rest.rpartition(".")
        parts = [ours[int(number)], RESIDUAL.get(path, path), WEIGHT_NORM.get(parameter, parameter)]
        renamed[".".join(part for part in parts if part)] = tensor
    generator = Generator(settings)
    _load(generator, renamed, "generator")
    return generator.eval()


def read_discriminator(
    arguments: Mapping[str, object], published: Mapping[str, Tensor]
) -> Discriminator:
    """The discriminator of a published run, weight norm kept; its widths come from the weights.

    Raises:
        InvalidInputError: weights that are no published discriminator.
        SettingsMismatchError: arguments and weights contradict each other.
    """
    shapes: dict[tuple[int, int], tuple[int, ...]] = {}
    places: dict[str, tuple[int, int, str]] = {}
    for name, tensor in _unwrapped(published).items():
        match = DISCRIMINATOR_KEY.fullmatch(name)
        if not match:
            raise InvalidInputError(f"MelGAN: {name} is not of a published discriminator")
        scale, layer, parameter = int(match[1]), int(match[2]), match[3]
        places[name] = (scale, layer, WEIGHT_NORM.get(parameter, parameter))
        if parameter == "weight_v":
            shapes[scale, layer] = tuple(tensor.shape)
    verdict = max((layer for _, layer in shapes), default=0)
    if verdict < 3 or (0, 0) not in shapes or (0, 1) not in shapes:
        raise InvalidInputError("MelGAN: the weights are not those of a published discriminator")
    settings = DiscriminatorSettings(
        scales=1 + max(scale for scale, _ in shapes),
        ndf=shapes[0, 0][0],
        n_layers=verdict - 2,
        downsampling_factor=shapes[0, 1][2] // 10,
        max_channels=max(shape[0] for shape in shapes.values()),
    )
    found = {
        "num_D": settings.scales,
        "ndf": settings.ndf,
        "n_layers_D": settings.n_layers,
        "downsamp_factor": settings.downsampling_factor,
    }
    _refuse_contradictions(arguments, found, "discriminator")
    renamed: dict[str, Tensor] = {}
    for name, tensor in _unwrapped(published).items():
        scale, layer, parameter = places[name]
        inner = "" if layer == verdict else "0."
        renamed[f"scales.{scale}.layers.{layer}.{inner}{parameter}"] = tensor
    discriminator = Discriminator(settings)
    _load(discriminator, renamed, "discriminator")
    return discriminator.eval()


def _generator_settings(
    arguments: Mapping[str, object], state: Mapping[str, Tensor], kinds: Mapping[int, str]
) -> MelGanSettings:
    convolutions = [number for number, kind in kinds.items() if kind == "convolution"]
    if len(convolutions) < 3:
        raise InvalidInputError("MelGAN: the weights are not those of a published generator")
    first, *upsamplings, _ = convolutions
    channels, n_mels, _ = state[f"model.{first}.weight_v"].shape
    ratios = tuple(state[f"model.{number}.weight_v"].shape[2] // 2 for number in upsamplings)
    ngf = channels // 2 ** len(ratios)
    n_residual_layers = list(kinds.values()).count("residual") // len(ratios)
    found = {
        "ngf": ngf,
        "n_residual_layers": n_residual_layers,
        "ratios": list(ratios),
        "n_mel_channels": n_mels,
    }
    _refuse_contradictions(arguments, found, "generator")
    variant: Literal["original", "gru"] = "gru" if "recurrence" in kinds.values() else "original"
    mel = MelSettings(sample_rate_hertz=_sample_rate(arguments), n_mels=n_mels)
    return MelGanSettings(variant, ngf, n_residual_layers, ratios, mel)


def _generator_layers(state: Mapping[str, Tensor]) -> dict[int, str]:
    """What each numbered layer with weights is, in order."""
    kinds: dict[int, str] = {}
    for name in state:
        match = re.fullmatch(r"model\.(\d+)\.(.+)", name)
        if not match:
            raise InvalidInputError(f"MelGAN: {name} is not of a published generator")
        if match[2].startswith("rec."):
            kinds[int(match[1])] = "recurrence"
        elif match[2].startswith(("block.", "shortcut.")):
            kinds[int(match[1])] = "residual"
        else:
            kinds[int(match[1])] = "convolution"
    return dict(sorted(kinds.items()))


def _generator_names(settings: MelGanSettings) -> list[str]:
    """Our modules in the order in which the published generator numbers them."""
    names = ["first"]
    if settings.variant == "gru":
        names.append("recurrence")
    for i in range(len(settings.ratios)):
        names.append(f"upsamplings.{i}.transposed")
        names += [f"upsamplings.{i}.residuals.{j}" for j in range(settings.n_residual_layers)]
    return [*names, "last"]


def _unwrapped(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in published.items():
        if not isinstance(tensor, Tensor):
            raise InvalidInputError(f"MelGAN: {name} holds no weights: this is no state dict")
    return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in published.items()}


def _load(module: Generator | Discriminator, state: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInputError(
            f"MelGAN: the weights are not those of a published {what}: {error}"
        ) from error


def _refuse_contradictions(
    arguments: Mapping[str, object], found: Mapping[str, object], what: str
) -> None:
    for name, value in found.items():
        if name not in arguments:
            continue
        told = arguments[name]
        if isinstance(told, str):
            try:
                told = ast.literal_eval(told)
            except (ValueError, SyntaxError) as error:
                raise InvalidInputError(f"MelGAN: {name} is {told!r}", culprit=name) from error
        told = list(told) if isinstance(told, tuple) else told
        if told != value:
            raise SettingsMismatchError(
                f"MelGAN: the arguments say {name} {told}, the {what}'s weights {value}: they come "
                "from different runs, or a resumed one rewrote them; correct the arguments",
                culprit=name,
            )


def _sample_rate(arguments: Mapping[str, object]) -> int:
    rate = arguments.get("sampling_rate")
    if not isinstance(rate, int | str) or not str(rate).isdigit():
        raise InvalidInputError(
            f"MelGAN: sampling_rate is {rate}; the weights cannot tell it, so the arguments must",
            culprit="sampling_rate",
        )
    return int(rate)
