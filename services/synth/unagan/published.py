"""Published UNAGAN checkpoints (ciaua/unagan): their keys, statistics and config, read as ours.

Takes plain dicts of tensors; opening foreign pickles is the importer's business.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from services.errors import InvalidInputError
from services.synth.mel import MelSettings
from services.synth.unagan.generator import UnaganSettings, build_generator

# The weights show how many upsampling steps there are, but not how far each goes.
PUBLISHED_SCALE_FACTOR = 2

_BODY_BLOCK = {"0": "conv_in", "1": "norm", "3": "recurrent", "4": "conv_out"}
_NONHIERARCHICAL_BODY = {"0": "conv_in", "1": "norm", "3": "blocks.0", "4": "blocks.1"}
_SPECTRAL_NORM = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def import_generator(
    checkpoint: Mapping[str, Any],
    mean: NDArray[np.floating[Any]],
    std: NDArray[np.floating[Any]],
    config: Mapping[str, Any] | None = None,
    mel: MelSettings | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """`params.Generator.*.torch`, `mean.mel.npy`, `std.mel.npy` as (safetensors, config).

    `config` is what the training run's config holds, as far as known: widths, groups and the
    number of steps are inferred from the weights, scale factors are otherwise taken as 2 each.
    Without `mel`, the mel settings are the published ones.

    Raises InvalidInputError for weights that are no UNAGAN generator, for statistics that do not
    fit them and for a config that says otherwise than they do.
    """
    published = checkpoint.get("state_dict.model", checkpoint)
    settings = infer_settings(published, config or {}, mel or MelSettings())
    generator = build_generator(settings)
    state = generator_state(published)
    try:
        generator.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInputError(f"not the weights of an UNAGAN generator: {error}") from error
    statistics = {"mean": np.ravel(mean), "std": np.ravel(std)}
    for name, values in statistics.items():
        if values.shape != (settings.feat_dim,) or not np.isfinite(values).all():
            raise InvalidInputError(
                f"{name}.mel.npy must hold {settings.feat_dim} finite numbers, "
                f"not an array of shape {values.shape}",
                culprit=f"{name}.mel.npy",
            )
    weights = {key: tensor.detach().contiguous() for key, tensor in state.items()}
    return save(weights), {
        **settings.to_config(),
        **{name: [float(value) for value in values] for name, values in statistics.items()},
    }


def infer_settings(
    published: Mapping[str, Tensor], config: Mapping[str, Any], mel: MelSettings
) -> UnaganSettings:
    """The settings that a published generator's weights have; `config` must not contradict."""
    hierarchical = "block0.block.0.weight" in published
    try:
        first = published["block0.block.0.weight" if hierarchical else "body.0.weight"]
        head = published["head0.weight" if hierarchical else "head.weight"]
        grouped = published[f"{'block0.block' if hierarchical else 'body'}.3.conv.weight"]
    except KeyError as missing:
        raise InvalidInputError(
            f"not the weights of an UNAGAN generator: {missing} is missing"
        ) from missing
    steps = sum(bool(re.fullmatch(r"heads\.\d+\.weight", key)) for key in published)
    inferred = {
        "feat_dim": head.shape[0],
        "z_dim": first.shape[1],
        "middle_dim": first.shape[0],
        "num_groups": grouped.shape[0] // grouped.shape[1],
    }
    for name, value in inferred.items():
        if int(config.get(name, value)) != value:
            raise InvalidInputError(
                f"the config says {name} {config[name]}, the weights have {value}", culprit=name
            )
    factors = (2, 2, 2, 2) if not steps else (PUBLISHED_SCALE_FACTOR,) * steps
    factors = tuple(int(factor) for factor in config.get("z_scale_factors", factors))
    if hierarchical and len(factors) != steps:
        raise InvalidInputError(
            f"the config has {len(factors)} z_scale_factors, the weights {steps} steps",
            culprit="z_scale_factors",
        )
    return UnaganSettings(
        variant="hierarchical" if hierarchical else "nonhierarchical",
        z_dim=inferred["z_dim"],
        z_scale_factors=factors,
        middle_dim=inferred["middle_dim"],
        num_groups=inferred["num_groups"],
        mel=replace(mel, n_mels=inferred["feat_dim"]),
    )


def generator_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published generator's state dict, of either variant, under our keys."""
    return {_generator_key(key): tensor for key, tensor in published.items()}


def critic_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published discriminator's or encoder's state dict under our keys."""
    return {_critic_key(key): tensor for key, tensor in published.items()}


def _generator_key(key: str) -> str:
    """For example blocks.0.block.3.rec.bias_ih_l0 to blocks.1.recurrent.gru.bias_ih_l0."""
    key = key.replace(".rec.", ".gru.").replace(".gn.", ".norm.")
    if found := re.match(r"block(?:0|s\.(\d+))\.block\.([0134])\.", key):
        number = int(found[1]) + 1 if found[1] else 0
        return f"blocks.{number}.{_BODY_BLOCK[found[2]]}.{key[found.end() :]}"
    if found := re.match(r"head(?:0|s\.(\d+))\.", key):
        return f"heads.{int(found[1]) + 1 if found[1] else 0}.{key[found.end() :]}"
    if found := re.match(r"body\.([0134])\.", key):
        return f"{_NONHIERARCHICAL_BODY[found[1]]}.{key[found.end() :]}"
    return key


def _critic_key(key: str) -> str:
    """For example body2d.1.block.0.weight_u to body2d.blocks.1.0.parametrizations.weight.0._u."""
    key = key.replace("body2d.", "body2d.blocks.").replace(".block.", ".")
    owner, _, name = key.rpartition(".")
    return f"{owner}.{_SPECTRAL_NORM.get(name, name)}"
