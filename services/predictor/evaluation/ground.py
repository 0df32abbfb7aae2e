"""The ground of a comparison: the places that all predictors go on from, and what came there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.evaluation.autoregression import ORDERS
from services.predictor.evaluation.horizons import Answers, at_horizons, standard_error
from services.predictor.evaluation.material import Material, Place, courses, places_in
from services.predictor.evaluation.motion import LEAST_FRAMES, Motion
from services.predictor.evaluation.novelty import nearest, novelty, windows_of
from services.predictor.port import FloatArray, Predictor

Kind = Literal["model", "baseline", "extra", "recordings"]
LONG = "long_"
"""What the names of figures of the long continuations begin with."""
TRAINING = "training_"
"""What the names of figures beside the training tracks, not the held-out ones, begin with."""
LEAST_TRAINING_PLACES = 128
"""Stretches of the training tracks that their motion is that of, at least."""


@dataclass(frozen=True)
class ComparisonSettings:
    """How predictors are compared."""

    places: int = 128
    """Places of held-out files that are gone on from, spread evenly."""
    horizons: tuple[int, ...] = (1, 10, 100, 500)
    """Frames ahead at which errors are taken."""
    frames: int = 500
    """Length of each continuation."""
    long_frames: int = 2000
    """Length of the long ones, at temperature 1, of stochastic predictors; 0 for none."""
    samples: int = 16
    """Continuations of each place at temperature 1, of stochastic predictors."""
    likelihood_frames: int = 64
    """Frames after each window whose likelihood is told."""
    novelty_windows: int = 512
    """Windows whose nearest one of the training is sought; 0 for none."""
    orders: tuple[int, ...] = ORDERS
    """Orders that the linear autoregression chooses among."""
    seed: int = 0
    """The first of the seeds; each continuation has its own."""
    batch: int = 32
    """Places gone on from at once."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """One predictor and what it is called."""

    name: str
    predictor: Predictor
    kind: Kind = "model"
    tells_statics: bool = True
    """Whether its density, if it has one, is that of the static coefficients alone."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What was found out about a predictor at one temperature."""

    name: str
    kind: Kind
    temperature: float
    figures: dict[str, float]
    example: FloatArray | None = None
    """Its continuation of the example's place, raw (frames, features)."""
    ahead: NDArray[np.float64] | None = None
    """What its errors are of, z-scores (places, horizons, features)."""

    @property
    def title(self) -> str:
        """Its name, and how it was asked if it can be asked otherwise."""
        return f"{self.name}, temperature 1" if self.temperature else self.name


@dataclass(frozen=True, eq=False)
class Ground:
    """What all predictors of a comparison are asked, and what would have been right."""

    material: Material
    settings: ComparisonSettings
    places: tuple[Place, ...]
    frames: int
    windows: FloatArray
    came: FloatArray
    answers: Answers
    long_places: tuple[Place, ...]
    long_frames: int

    @classmethod
    def of(cls, material: Material, settings: ComparisonSettings, window_frames: int) -> "Ground":
        """Places that so long a window fits before; InvalidInputError if there are none."""
        frames = _frames_that_fit(material, window_frames, settings.frames)
        if frames < 1:
            longest = max(track.frame_count for track in material.held_out)
            raise InvalidInputError(
                f"the longest held-out recording has {longest} frames, which leaves nothing to "
                f"foretell after a window of {window_frames}",
                culprit="window_frames",
            )
        long_frames = _frames_that_fit(material, window_frames, settings.long_frames)
        places = material.places(settings.places, window_frames=window_frames, frames_ahead=frames)
        horizons = tuple(ahead for ahead in settings.horizons if ahead <= frames)
        came = material.futures(places, frames)
        answers = Answers(
            horizons=horizons,
            values=at_horizons(material.scored(came), horizons).astype(np.float64),
            counts=material.regular_futures(places, frames)[:, np.asarray(horizons) - 1],
            files=np.array([place.track for place in places]),
            static_count=material.static_count,
        )
        return cls(
            material=material,
            settings=settings,
            places=places,
            frames=frames,
            windows=material.windows(places, window_frames),
            came=came,
            answers=answers,
            long_places=material.places(
                settings.places, window_frames=window_frames, frames_ahead=long_frames
            ),
            long_frames=long_frames if long_frames > frames else 0,
        )

    @cached_property
    def example(self) -> int:
        """The place where most happens, by the variance of z-scores, outliers left alone."""
        scored = self.material.scored(self.came)
        inside = self.material.regular_futures(self.places, self.frames)[:, :, np.newaxis]
        variances = scored.var(axis=1, where=inside).mean(axis=1)
        return int(np.nan_to_num(variances, nan=-1.0).argmax())

    def at_zero(self, contestant: Contestant) -> Entry:
        """Its most likely continuations."""
        told = self._continued(contestant, self.windows, self.frames)
        scored = self.material.scored(told)
        ahead = at_horizons(scored, self.answers.horizons).astype(np.float64)
        figures = self.answers.errors(ahead) | self.answers.crps(ahead[np.newaxis])
        figures |= self._motion(scored)
        return Entry(contestant.name, contestant.kind, 0.0, figures, told[self.example], ahead)

    def sampled(self, contestant: Contestant) -> Entry:
        """Its continuations at temperature 1."""
        ahead = []
        first: FloatArray | None = None
        for number in range(self.settings.samples):
            told = self._continued(
                contestant, self.windows, self.frames, sample=number, temperature=1.0
            )
            first = told if first is None else first
            chosen = at_horizons(told, self.answers.horizons)
            ahead.append(self.material.scored(chosen))
        assert first is not None  # noqa: S101 - there is at least one sample
        samples = np.stack(ahead)
        mean = samples.mean(axis=0).astype(np.float64)
        figures = self.answers.errors(mean) | self.answers.crps(samples)
        scored = self.material.scored(first)
        figures |= self._motion(scored) | self._likelihood(contestant)
        figures |= self._novelty(scored)
        if self.long_frames:
            windows = self.material.windows(self.long_places, self.windows.shape[1])
            told = self._continued(contestant, windows, self.long_frames, temperature=1.0)
            figures |= self._motion(self.material.scored(told))
        return Entry(contestant.name, contestant.kind, 1.0, figures, first[self.example], mean)

    def recordings(self) -> Entry:
        """The training tracks beside the held-out ones."""
        figures: dict[str, float] = {}
        for frames in (self.frames, self.long_frames):
            held_out, training = self._real(frames)
            if held_out and training:
                prefix = LONG if frames == self.long_frames else ""
                told = training.beside(held_out, self.material.frame_rate_hertz)
                figures |= {prefix + name: value for name, value in told.items()}
        return Entry("recordings of the training part", "recordings", 0.0, figures)

    def _continued(
        self,
        contestant: Contestant,
        windows: FloatArray,
        steps: int,
        *,
        sample: int = 0,
        temperature: float = 0.0,
    ) -> FloatArray:
        """What it tells, raw (places, steps, features) in the order of the material."""
        predictor, names = contestant.predictor, self.material.feature_names
        if odd := set(predictor.feature_names) ^ set(names):
            raise SettingsMismatchError(
                f"{contestant.name}: its features are not those of the recordings: {min(odd)} is "
                "known to one of them alone",
                culprit=contestant.name,
            )
        own = [names.index(name) for name in predictor.feature_names]
        back = [predictor.feature_names.index(name) for name in names]
        count, size = len(windows), self.settings.batch
        seeds = range(
            self.settings.seed + sample * count, self.settings.seed + (sample + 1) * count
        )
        told = [
            predictor.predict_many(
                np.ascontiguousarray(windows[first : first + size, :, own]),
                steps,
                seeds=seeds[first : first + size],
                temperature=temperature,
            )[:, :, back]
            for first in range(0, count, size)
        ]
        whole = np.concatenate(told)
        if not np.isfinite(whole).all():
            raise InvalidInputError(
                f"what {contestant.name} tells is not finite: its training diverged",
                culprit=contestant.name,
            )
        return whole

    def _motion(self, told: NDArray[np.floating]) -> dict[str, float]:
        """How alive z-scores are, beside real ones of the same length."""
        frames, rate = told.shape[1], self.material.frame_rate_hertz
        held_out, training = self._real(frames)
        if not held_out:
            return {}
        own = Motion.of(told)
        figures = own.beside(held_out, rate)
        if training:
            figures |= {
                TRAINING + name: value
                for name, value in own.beside(training, rate).items()
                if "drift" not in name
            }
        return {(LONG if frames == self.long_frames else "") + n: v for n, v in figures.items()}

    def _real(self, frames: int) -> tuple[Motion | None, Motion | None]:
        """The motion of held-out and of training tracks over so many frames; None if too few."""
        return self._real_long if frames == self.long_frames else self._real_short

    @cached_property
    def _real_short(self) -> tuple[Motion | None, Motion | None]:
        return self._real_of(self.places, self.frames)

    @cached_property
    def _real_long(self) -> tuple[Motion | None, Motion | None]:
        return self._real_of(self.long_places, self.long_frames)

    def _real_of(self, places: Sequence[Place], frames: int) -> tuple[Motion | None, Motion | None]:
        if frames < LEAST_FRAMES or not places:
            return None, None
        tracks, score = self.material.training, self.material.scored
        count = max(self.settings.places, LEAST_TRAINING_PLACES)
        known = places_in(tracks, count, window_frames=0, frames_ahead=frames)
        return (
            Motion.of(score(self.material.futures(places, frames))),
            Motion.of(score(courses(tracks, known, frames))) if known else None,
        )

    def _likelihood(self, contestant: Contestant) -> dict[str, float]:
        predictor = contestant.predictor
        if not isinstance(predictor, _Dense) or not contestant.tells_statics:
            return {}
        heard = self.windows[:, -predictor.window_frames :]
        ahead = min(self.settings.likelihood_frames, self.frames)
        names = self.material.feature_names
        own = [names.index(name) for name in predictor.feature_names]
        whole = np.concatenate([heard, self.came[:, :ahead]], axis=1)[:, :, own]
        size = self.settings.batch
        told = [
            predictor.log_likelihood(
                np.ascontiguousarray(whole[first : first + size]), heard.shape[1]
            )
            for first in range(0, len(whole), size)
        ]
        known = [each for each in told if each is not None]
        if not known:
            return {}
        # Of raw values; z-scores are as many times as dense as their scales say.
        scales = self.material.statistics.scales[: self.material.static_count]
        nats = np.concatenate(known) + np.log(scales).sum()
        counted = self.material.regular_futures(self.places, ahead)
        files = np.broadcast_to(self.answers.files[:, np.newaxis], counted.shape)
        return {
            "log_likelihood": float(nats[counted].mean()),
            "log_likelihood_standard_error": standard_error(nats[counted], files[counted]),
        }

    def _novelty(self, told: NDArray[np.floating]) -> dict[str, float]:
        count = self.settings.novelty_windows
        if not count:
            return {}
        statics = self.material.static_count
        known = [self.material.scored(t.values)[:, :statics] for t in self.material.training]
        held = [self.material.scored(t.values)[:, :statics] for t in self.material.held_out]
        try:
            own, real = windows_of(list(told[:, :, :statics]), count), windows_of(held, count)
        except InvalidInputError:
            return {}
        return novelty(nearest(own, known), nearest(real, known))


@runtime_checkable
class _Dense(Protocol):
    """A predictor that tells how likely frames are."""

    def log_likelihood(
        self, frames: FloatArray, window_frames: int
    ) -> "NDArray[np.float64] | None":
        """Nats of each raw frame after the window, (B, F - window)."""


def _frames_that_fit(material: Material, window_frames: int, wanted: int) -> int:
    """As many as wanted; where no track has them, half of what the longest one has."""
    longest = material.longest_ahead(window_frames)
    return wanted if longest >= wanted else (longest + 1) // 2
