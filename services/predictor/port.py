"""The port of prediction: whatever continues a descriptor sequence is a `Predictor`.

A package of anybody's brings one in as a plug-in. It subclasses `Predictor`, implements the
abstract properties (plain class attributes will do) and `_continue`, and names the class in its
pyproject.toml, under the id by which it is asked for:

    [project.entry-points."demiurge.predictors"]
    markov = "demiurge_markov:Markov"

Once it is installed beside Demiurge, `demiurge models` lists it, and `demiurge run --predictor
markov` uses it. It is constructed without arguments: once to be described, and again when it is
first used, so what takes long or much memory is best loaded by the first `_continue`. Each instance
is used by one thread at a time. Whatever it draws must follow from `seed`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError, SettingsMismatchError, WindowTooLongError

FloatArray = NDArray[np.float32]
Checkpoint = Callable[[], None]


def never_stop() -> None:
    """The checkpoint of a caller who waits for ever."""


class Predictor(ABC):
    """Continues descriptor sequences; the same question always gets the same answer."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Its form, as "LSTM"."""

    @property
    @abstractmethod
    def window_frames(self) -> int:
        """Frames that it looks at."""

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """Columns that it reads and writes, in its own order."""

    @property
    @abstractmethod
    def sample_rate_hertz(self) -> int:
        """Rate of the descriptors that it knows."""

    @property
    @abstractmethod
    def hop_length_samples(self) -> int:
        """Hop of the descriptors that it knows."""

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether it draws at random, so that temperature may be above 0 and the seed matters."""

    @property
    def version(self) -> str:
        """For plug-ins: what the answers depend on beside the package's code, as a hash of weights.

        By this and the version of its package a run tells that the answers may have changed.
        """
        return ""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds; 0 if that is next to nothing."""
        return 0

    def predict(
        self,
        window: FloatArray,
        steps: int,
        *,
        seed: int = 0,
        temperature: float = 0.0,
        checkpoint: Checkpoint = never_stop,
        source: str = "",
    ) -> FloatArray:
        """Continues `window`, (frames, features) float32 raw values, by (steps, features).

        Only the last `window_frames` frames count. `checkpoint` is called between steps and may
        raise to stop the work. Raises WindowTooLongError, naming `source`, if the window is
        shorter than that, SettingsMismatchError if its columns do not fit, and InvalidInputError
        for fewer than one step or a temperature that a deterministic predictor cannot have.
        """
        self._refuse(window, steps, temperature, source)
        checkpoint()
        return self._continue(window[-self.window_frames :], steps, seed, temperature, checkpoint)

    def predict_many(
        self,
        windows: FloatArray,
        steps: int,
        *,
        seeds: Sequence[int],
        temperature: float = 0.0,
        checkpoint: Checkpoint = never_stop,
    ) -> FloatArray:
        """Continues (windows, frames, features) by (windows, steps, features), each by its seed.

        As `predict` does one after the other, up to rounding: for judging, not for runs.
        """
        for window in windows:
            self._refuse(window, steps, temperature, "")
        checkpoint()
        return self._continue_many(
            windows[:, -self.window_frames :], steps, seeds, temperature, checkpoint
        )

    @abstractmethod
    def _continue(
        self,
        window: FloatArray,
        steps: int,
        seed: int,
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        """Continues exactly `window_frames` frames, all arguments checked."""

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        """As `_continue`, for several; what can compute them together does."""
        return np.stack(
            [
                self._continue(window, steps, seed, temperature, checkpoint)
                for window, seed in zip(windows, seeds, strict=True)
            ]
        )

    def _refuse(self, window: FloatArray, steps: int, temperature: float, source: str) -> None:
        if window.ndim != 2 or window.shape[1] != len(self.feature_names):
            raise SettingsMismatchError(
                f"{source or 'window'}: values of shape {window.shape} do not fit a predictor of "
                f"{len(self.feature_names)} features",
                culprit=source,
            )
        if len(window) < self.window_frames:
            raise WindowTooLongError(
                f"{source or 'window'}: has {len(window)} frames, but this {self.architecture} "
                f"looks at {self.window_frames}: give a longer sound or a predictor with a "
                "shorter window",
                culprit=source,
            )
        if steps < 1:
            raise InvalidInputError(f"steps is {steps}; ask for at least 1", culprit="steps")
        if temperature < 0 or (temperature > 0 and not self.stochastic):
            raise InvalidInputError(
                f"temperature is {temperature}, but this {self.architecture} is "
                f"{'stochastic: at least 0' if self.stochastic else 'deterministic: only 0'} works",
                culprit="temperature",
            )


class BatchPredictor(Predictor):
    """A predictor that computes several windows together: one alone is a batch of one."""

    def _continue(
        self,
        window: FloatArray,
        steps: int,
        seed: int,
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        one = window[np.newaxis]
        answer: FloatArray = self._continue_many(one, steps, [seed], temperature, checkpoint)[0]
        return answer

    @abstractmethod
    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        """Continues windows of exactly `window_frames` frames, all arguments checked."""
