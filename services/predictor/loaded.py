"""The predictors used last, ready as long as they fit into memory together."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from services.predictor.port import Predictor


class LoadedPredictors:
    """Predictors of at most `limit_bytes` together, or one that is larger; for one thread alone.

    What a predictor needs while it is at work is not counted.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._loaded: OrderedDict[Hashable, tuple[Predictor, int]] = OrderedDict()

    def get(
        self, name: Hashable, load: Callable[[], Predictor], *, expected_bytes: int = 0
    ) -> Predictor:
        """The predictor of that name, which no other content has, by `load` if it is not there.

        Those used longest ago go, already before it is loaded as far as its size is expected.
        """
        if name not in self._loaded:
            self._make_room(expected_bytes)
            predictor = load()
            size = predictor.size_bytes
            self._make_room(size)
            self._loaded[name] = predictor, size
        self._loaded.move_to_end(name)
        return self._loaded[name][0]

    def _make_room(self, size: int) -> None:
        while self._loaded and self._size() + size > self._limit_bytes:
            self._loaded.popitem(last=False)

    def _size(self) -> int:
        return sum(size for _, size in self._loaded.values())
