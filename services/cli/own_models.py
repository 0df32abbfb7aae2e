"""Models of another Demiurge store, as its folder models/<family>/<id> holds them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import CorruptObjectError, InvalidInputError
from services.runtime.model_store import FAMILIES, PICTURE_NAME, ModelStore, ModelVersion

# What a store adds to a config.
ADDED = ("weights_sha256", "weights_size_bytes")


@dataclass(frozen=True)
class OwnModel:
    """A model's folder, and its steps in their order."""

    folder: Path
    family: str
    steps: list[int]
    best: int

    def copy_into(self, models: ModelStore, model_id: str) -> ModelVersion:
        """Stores all steps under `model_id`; the best one.

        Raises CorruptObjectError, naming the file, for weights that are not those of the config,
        and ConflictError if another model has this id; nothing is stored before all are checked.
        """
        for step in self.steps:
            self._weights(step)
        for step in self.steps:
            config = {
                name: value for name, value in self._config(step).items() if name not in ADDED
            }
            path = self.folder / str(step) / "card.md"
            card = path.read_text(encoding="utf-8") if path.exists() else ""
            version = models.save(
                self.family,
                model_id,
                step,
                weights=self._weights(step),
                config=config,
                card=card,
                best=step == self.best,
            )
            figures, pictures = self._found_out(step)
            if figures or pictures:
                models.describe(version, figures=figures, card=card, pictures=pictures)
        return models.find(self.family, model_id)

    def _config(self, step: int) -> dict[str, Any]:
        from services.cli.foreign import load_json

        return load_json(self.folder / str(step) / "config.json")

    def _found_out(self, step: int) -> tuple[dict[str, float], dict[str, bytes]]:
        """What `demiurge evaluate` left beside the weights: figures and pictures, by name."""
        from services.cli.files import read_file
        from services.cli.foreign import load_json

        folder = self.folder / str(step)
        path = folder / "figures.json"
        told = load_json(path) if path.exists() else {}
        figures = {name: float(value) for name, value in told.items() if isinstance(value, float)}
        names = sorted(each.name for each in folder.iterdir() if PICTURE_NAME.fullmatch(each.name))
        return figures, {name: read_file(folder / name) for name in names}

    def _weights(self, step: int) -> bytes:
        from services.cli.files import read_file

        path = self.folder / str(step) / "model.safetensors"
        weights = read_file(path)
        if hashlib.sha256(weights).hexdigest() != self._config(step).get("weights_sha256"):
            raise CorruptObjectError(
                f"{path}: damaged, its hash is not that of its config.json: copy it anew",
                culprit=str(path),
            )
        return weights


def own_model(folder: Path) -> OwnModel | None:
    """The model in `folder`; None if it is not laid out as a store's.

    Raises InvalidInputError, naming the folder, for one that lacks what belongs to it.
    """
    from services.cli.foreign import load_json

    if not (folder / "best.json").is_file():
        return None
    best = load_json(folder / "best.json").get("step")
    steps = sorted(
        int(path.parent.name)
        for path in folder.glob("*/config.json")
        if path.parent.name.isdecimal()
    )
    if best not in steps:
        raise InvalidInputError(
            f"{folder} lacks its best step, {best}: copy the folder whole", culprit=str(folder)
        )
    config = load_json(folder / str(best) / "config.json")
    # Configs of predictors do not say so: those of others may take their place.
    family = str(config.get("family", "predictor"))
    if family not in FAMILIES or (family == "predictor" and "feature_names" not in config):
        raise InvalidInputError(f"{folder} holds no model of Demiurge", culprit=str(folder))
    return OwnModel(folder, family, steps, best)
