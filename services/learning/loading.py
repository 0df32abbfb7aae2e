"""Networks from stored configs and weights: nothing is allocated that the weights do not fill.

A config may claim a layer a billion wide. It is built without memory first (torch's meta device),
and only if the weights have just these shapes, for real.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from services.errors import InvalidInputError

# Far beyond any network here; what is larger would take its time even without memory.
_LARGEST = {"num_layers": 256, "num_encoder_layers": 256, "n_residual_layers": 16}
_LARGEST |= {"n_mels": 1024, "n_fft": 65_536}
_LARGEST_NUMBER = 1 << 20
_LONGEST = 1024

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def refuse_absurd_sizes(settings: Any) -> None:
    """Raises InvalidInputError, naming the field, for a size that no network has.

    `settings` is a dataclass; those in it are looked at as well.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            refuse_absurd_sizes(value)
            continue
        values = value if isinstance(value, tuple) else (value,)
        largest = _LARGEST.get(field.name, _LARGEST_NUMBER)
        if len(values) > _LONGEST or any(
            isinstance(each, int) and each > largest for each in values
        ):
            raise InvalidInputError(
                f"{field.name} is {str(value)[:80]}, which no network has: at most {largest}",
                culprit=field.name,
            )


def filled(build: Callable[[], NetworkT], weights: Mapping[str, Tensor]) -> NetworkT:
    """What `build` makes, with these weights; RuntimeError if they are not all that it needs."""
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in build().state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            told = [str(list(each[name])) if name in each else "absent" for each in (wanted, given)]
            raise RuntimeError(f"{name} should be {told[0]} and is {told[1]}")
    network = build()
    network.load_state_dict(weights)
    return network
