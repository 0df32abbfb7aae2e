"""The predictors used last, ready on a device."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from services.predictor.loading import load_predictor
from services.predictor.port import Predictor


class LoadedPredictors:
    """At most `capacity` predictors on `device`; for one thread alone."""

    def __init__(self, device: torch.device, capacity: int) -> None:
        self._device = device
        self._capacity = capacity
        self._loaded: OrderedDict[Hashable, Predictor] = OrderedDict()

    def get(
        self, name: Hashable, config: dict[str, Any], read_weights: Callable[[], bytes]
    ) -> Predictor:
        """The predictor of that name, which no other content has."""
        if name not in self._loaded:
            self._loaded[name] = load_predictor(config, read_weights(), device=self._device)
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        return self._loaded[name]
