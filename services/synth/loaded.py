"""The models used last, ready on a device."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from services.errors import ConfigurationError
from services.synth.generation.vocoding import Vocoder
from services.synth.melgan import generator as melgan
from services.synth.unagan import generator as unagan

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}

ModelT = TypeVar("ModelT")


@dataclass(frozen=True)
class StoredModel:
    """A stored model: its name, which no other content has, its config, and how to get it."""

    name: Hashable
    config: Mapping[str, Any]
    read_weights: Callable[[], bytes]


class LoadedModels:
    """At most `capacity` models on `device`; for one thread alone."""

    def __init__(
        self,
        device: torch.device,
        capacity: int,
        *,
        precision: str = "float32",
        graphs: bool = False,
    ) -> None:
        self._device = device
        self._capacity = capacity
        self._dtype = DTYPES[precision]
        self._graphs = graphs and device.type == "cuda"
        self._loaded: OrderedDict[Hashable, Any] = OrderedDict()

    def unagan(self, stored: StoredModel) -> unagan.Unagan:
        """The generator, with its statistics."""
        return self._get(
            stored,
            lambda: unagan.load_generator(stored.config, stored.read_weights()).to(self._device),
        )

    def melgan(self, stored: StoredModel) -> Vocoder:
        """The vocoder."""
        return self._get(stored, lambda: self._vocoder(stored))

    def _vocoder(self, stored: StoredModel) -> Vocoder:
        generator, _ = melgan.load_generator(stored.config, stored.read_weights())
        return Vocoder(generator.to(self._device), dtype=self._dtype, graphs=self._graphs)

    def _get(self, stored: StoredModel, load: Callable[[], ModelT]) -> ModelT:
        if stored.name not in self._loaded:
            self._loaded[stored.name] = load()
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(stored.name)
        loaded: ModelT = self._loaded[stored.name]
        return loaded


def open_device(name: str) -> torch.device:
    """The device of that setting; ConfigurationError if the machine has none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"DEMIURGE_SYNTH_DEVICE is {name}, but this machine offers no CUDA device",
            culprit="DEMIURGE_SYNTH_DEVICE",
        )
    return torch.device(name)
