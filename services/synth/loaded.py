"""The models used last, ready on a device."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from services.synth.generation.recent import Recent
from services.synth.generation.vocoding import Vocoder
from services.synth.melgan import generator as melgan
from services.synth.unagan import generator as unagan

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


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
        self._dtype = DTYPES[precision]
        self._graphs = graphs and device.type == "cuda"
        self._loaded: Recent[Any] = Recent(capacity)

    def unagan(self, stored: StoredModel) -> unagan.Unagan:
        """The generator, with its statistics."""

        def load() -> unagan.Unagan:
            return unagan.load_generator(stored.config, stored.read_weights()).to(self._device)

        found: unagan.Unagan = self._loaded.get(stored.name, load)
        return found

    def melgan(self, stored: StoredModel) -> Vocoder:
        """The vocoder."""

        def load() -> Vocoder:
            generator, _ = melgan.load_generator(stored.config, stored.read_weights())
            return Vocoder(generator.to(self._device), dtype=self._dtype, graphs=self._graphs)

        found: Vocoder = self._loaded.get(stored.name, load)
        return found
