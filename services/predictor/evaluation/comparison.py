"""Predictors compared: all from the same places of the same held-out files, beside baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from services.predictor.deltas import WIDTH
from services.predictor.evaluation.autoregression import ORDERS, LinearAutoregression
from services.predictor.evaluation.baselines import Persistence, TrainingMean
from services.predictor.evaluation.direct_forecast import DirectForecast
from services.predictor.evaluation.ground import (
    ComparisonSettings,
    Contestant,
    Entry,
    Ground,
)
from services.predictor.evaluation.material import Material
from services.predictor.port import FloatArray

AUTOREGRESSION = "linear autoregression"
Progress = Callable[[int, int], None]
"""Told how many of how many parts of the work are done."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """All entries, and what they were compared by."""

    entries: list[Entry]
    feature_names: tuple[str, ...]
    frame_rate_hertz: float
    frames: int
    horizons: tuple[int, ...]
    heard: FloatArray
    """What is heard before the example, raw (window, features)."""
    came: FloatArray
    """What came then, raw (frames, features)."""
    example: str
    """Where that is."""
    long_frames: int = 0
    """Length of the long continuations; 0 if there are none."""
    remarks: list[str] = field(default_factory=list)

    def figures_of(self, name: str) -> dict[str, float]:
        """All of one predictor; those at temperature 1 begin with `sampled_`."""
        return {
            f"{'sampled_' if entry.temperature else ''}{figure}": value
            for entry in self.entries
            if entry.name == name
            for figure, value in entry.figures.items()
        }


def baselines(
    material: Material, window_frames: int, orders: Sequence[int] = ORDERS
) -> list[Contestant]:
    """The baselines, fitted to the training tracks."""
    return [
        Contestant("persistence", Persistence(material), "baseline"),
        Contestant("training mean", TrainingMean(material), "baseline"),
        Contestant(AUTOREGRESSION, LinearAutoregression(material, orders), kind="baseline"),
        Contestant("direct linear forecast", DirectForecast(material, window_frames), "extra"),
    ]


def compare(
    models: Sequence[Contestant],
    material: Material,
    settings: ComparisonSettings | None = None,
    *,
    progress: Progress = lambda _done, _total: None,
) -> Comparison:
    """Compares models and baselines; figures are in z-scores of the training part.

    `Answers` says what the errors are, and how much smaller than those of the linear
    autoregression; `Motion.beside` says what tells how alive a predictor is. A stochastic one has
    two entries: at temperature 0, and at temperature 1, where the errors are those of the mean of
    some samples and the rest is of single ones. `log_likelihood` is the mean over frames of the
    logarithm of the density of z-scored statics, in nats. Figures that begin with `training_` are
    ratios to the training tracks, in the place of the held-out ones; those that begin with `long_`
    are of longer continuations. The last entry is of the training tracks beside the held-out ones:
    how alike music is.

    Raises InvalidInputError if no held-out track has a window's length and some frames beyond, and
    SettingsMismatchError if a predictor does not know the features.
    """
    settings = settings or ComparisonSettings()
    wanted = max([each.predictor.window_frames for each in models] + [WIDTH, max(settings.orders)])
    contestants = [*models, *baselines(material, wanted, settings.orders)]
    window = max(each.predictor.window_frames for each in contestants)
    ground = Ground.of(material, settings, window)
    entries: list[Entry] = []
    for done, contestant in enumerate(contestants):
        progress(done, len(contestants))
        entries.append(ground.at_zero(contestant))
        if contestant.predictor.stochastic:
            entries.append(ground.sampled(contestant))
    entries = _beside_autoregression(ground, entries)
    entries.append(ground.recordings())
    progress(len(contestants), len(contestants))
    place = ground.places[ground.example]
    return Comparison(
        entries=entries,
        feature_names=material.feature_names,
        frame_rate_hertz=material.frame_rate_hertz,
        frames=ground.frames,
        horizons=ground.answers.horizons,
        heard=ground.windows[ground.example],
        came=ground.came[ground.example],
        example=f"{material.held_out[place.track].source}, frame {place.frame}",
        long_frames=ground.long_frames,
        remarks=_remarks(ground, contestants),
    )


def _beside_autoregression(ground: Ground, entries: Sequence[Entry]) -> list[Entry]:
    """All entries, the others with how much less they err than its most likely continuations."""
    reference = next(
        entry for entry in entries if entry.name == AUTOREGRESSION and not entry.temperature
    )
    return [
        entry
        if entry is reference or entry.ahead is None or reference.ahead is None
        else replace(
            entry, figures=entry.figures | ground.answers.below(entry.ahead, reference.ahead)
        )
        for entry in entries
    ]


def _remarks(ground: Ground, contestants: Sequence[Contestant]) -> list[str]:
    material, settings = ground.material, ground.settings
    used = {place.track for place in ground.places}
    unused = [track.source for number, track in enumerate(material.held_out) if number not in used]
    autoregression = next(
        each.predictor.coefficients
        for each in contestants
        if isinstance(each.predictor, LinearAutoregression)
    )
    window = ground.windows.shape[1]
    remarks = [
        "Judged on files of a folder that no training of these models has heard."
        if material.unheard
        else "Judged on files kept back from training; the best step was chosen by them.",
        f"From {len(ground.places)} places of {len(used)} held-out files, spread evenly, "
        f"{ground.frames} frames each, at {material.frame_rate_hertz:.4g} frames a second. Errors "
        "are mean squared errors of z-scores by the training part, exactly so many frames ahead; 1 "
        "is the variance of the training part. Standard errors are over files."
        + (
            f" Frames further than {material.outlier_deviations:g} standard deviations from the "
            "mean of their file count in no error."
            if material.outlier_deviations
            else ""
        ),
        "Less than autoregression: by how much the error is smaller than the linear "
        "autoregression's at temperature 0, place by place, so that its standard error says "
        "whether a predictor beats that baseline; below 0 it does not.",
        "The last deltas of what is heard are those of a sound that ends there, as in a run.",
        f"The linear autoregression has order {autoregression.order} and ridge "
        f"{autoregression.ridge:g}"
        + (
            f", its roots multiplied by {autoregression.shrunk:.4f} to be stable"
            if autoregression.shrunk < 1
            else ""
        )
        + ". The direct linear forecast is an extra baseline.",
        f"At temperature 1: errors of the mean of {settings.samples} samples, all else of single "
        f"ones, the long ones {ground.long_frames} frames from {len(ground.long_places)} places.",
    ]
    if unused:
        remarks.append(
            f"Too short for a window of {window} frames and {ground.frames} ahead, and left out: "
            f"{', '.join(unused)}."
        )
    return remarks
