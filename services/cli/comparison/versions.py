"""Predictors of the store compared, beside the baselines, on what no training learned from."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.predictor.evaluation.comparison import Comparison
    from services.predictor.evaluation.ground import ComparisonSettings


def compare_versions(
    versions: Sequence[ModelVersion],
    tracks: "Sequence[DescriptorTrack]",
    models: ModelStore,
    settings: "ComparisonSettings",
    *,
    device: str,
    progress: Callable[[int, int], None],
    unheard: "Sequence[DescriptorTrack]" = (),
) -> "Comparison":
    """Compares predictors, called by their version ids, on the tracks of their training.

    They are judged on what their trainings kept back, or on `unheard` tracks if there are any.

    Raises NotFoundError if tracks that were kept back are missing, SettingsMismatchError, naming
    both sides, if the predictors do not fit each other or the tracks, and InvalidInputError if
    there is too little to compare by or one of them diverged.
    """
    from services.predictor.evaluation.comparison import compare
    from services.predictor.evaluation.ground import Contestant
    from services.predictor.evaluation.held_out import divided, refuse_other_tracks
    from services.predictor.loading import load_predictor

    configs = {version.version_id: version.config for version in versions}
    refuse_other_tracks(configs, [*tracks, *unheard])
    material = divided(configs, tracks, unheard)
    contestants = [
        Contestant(
            version.version_id,
            load_predictor(version.config, models.read_weights(version), device=device),
            tells_statics=version.config.get("deltas") == "computed" or not material.has_deltas,
        )
        for version in versions
    ]
    return compare(contestants, material, settings, progress=progress)
