import hashlib
from pathlib import Path

import orjson
import pytest

from services.errors import (
    ConflictError,
    CorruptObjectError,
    InvalidInputError,
    NotFoundError,
)
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import Content, StoredObject


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def models(store: FolderStore) -> ModelStore:
    return ModelStore(store)


def save(
    models: ModelStore, id_: str, step: int, *, weights: bytes = b"w", best: bool = False
) -> ModelVersion:
    return models.save(
        "melgan", id_, step, weights=weights, config={"ngf": 32}, card="# A card", best=best
    )


def test_a_saved_version_is_found_by_id_and_by_step(models: ModelStore, store: FolderStore) -> None:
    first = save(models, "k3x9q1ab", 100, weights=b"first")
    second = save(models, "k3x9q1ab", 200, weights=b"second", best=True)
    third = save(models, "k3x9q1ab", 300, weights=b"third")
    assert first.version_id == "k3x9q1ab@100"
    assert models.find("melgan", "k3x9q1ab") == second
    assert models.find("melgan", "k3x9q1ab@300") == third
    assert [models.read_weights(v) for v in (first, second, third)] == [
        b"first",
        b"second",
        b"third",
    ]
    assert second.weights_sha256 == hashlib.sha256(b"second").hexdigest()
    assert (second.size_bytes, second.config["ngf"]) == (6, 32)
    assert list(store.keys("models/melgan/k3x9q1ab/3")) == [
        f"models/melgan/k3x9q1ab/300/{name}"
        for name in ("card.md", "config.json", "model.safetensors")
    ]
    assert orjson.loads(store.read("models/melgan/k3x9q1ab/last.json")) == {"step": 300}
    assert orjson.loads(store.read("models/melgan/k3x9q1ab/best.json")) == {"step": 200}


def test_the_first_step_is_the_best_until_another_is(models: ModelStore) -> None:
    save(models, "a", 1)
    save(models, "a", 2)
    assert models.find("melgan", "a").step == 1


def test_a_missing_model_is_named_beside_those_there_are(models: ModelStore) -> None:
    save(models, "b", 1)
    save(models, "a-b", 1)
    save(models, "a", 1)
    for wanted in ("c", "a@2"):
        with pytest.raises(NotFoundError, match=f"'{wanted}'; there are: a, a-b, b$") as caught:
            models.find("melgan", wanted)
        assert caught.value.culprit == wanted
    with pytest.raises(NotFoundError, match="there are: none"):
        models.find("unagan", "a")


@pytest.mark.parametrize("wanted", ["", "../a", "a/b", "a@x", "a@-1", "a b"])
def test_what_cannot_be_an_id_is_refused(models: ModelStore, wanted: str) -> None:
    with pytest.raises(InvalidInputError):
        models.find("melgan", wanted)


def test_an_unknown_family_is_refused(models: ModelStore) -> None:
    with pytest.raises(InvalidInputError, match="hifigan"):
        models.find("hifigan", "a")
    with pytest.raises(InvalidInputError, match="hifigan"):
        list(models.list("hifigan"))


def test_the_same_step_again_is_free_but_not_with_other_weights(models: ModelStore) -> None:
    assert save(models, "a", 1) == save(models, "a", 1)
    with pytest.raises(ConflictError):
        save(models, "a", 1, weights=b"other")
    assert models.read_weights(models.find("melgan", "a")) == b"w"


def test_weights_of_a_save_that_was_cut_short_are_replaced(
    models: ModelStore, store: FolderStore
) -> None:
    store.put("models/melgan/a/1/model.safetensors", b"half the story")
    with pytest.raises(NotFoundError):
        models.find("melgan", "a@1")
    assert models.read_weights(save(models, "a", 1)) == b"w"


def test_the_list_has_the_best_of_each_by_id_and_leaves_damaged_ones_out(
    models: ModelStore, store: FolderStore
) -> None:
    for id_ in ("b", "a-b", "a", "damaged", "empty"):
        save(models, id_, 1)
    save(models, "b", 2, best=True)
    store.put("models/melgan/damaged/1/config.json", b"{")
    store.put("models/melgan/empty/1/config.json", b"{}")
    assert [found.version_id for found in models.list("melgan")] == ["a@1", "a-b@1", "b@2"]
    for id_ in ("damaged", "empty"):
        with pytest.raises(CorruptObjectError, match=id_):
            models.find("melgan", id_)


def test_weights_that_changed_are_refused(models: ModelStore, store: FolderStore) -> None:
    version = save(models, "a", 1)
    store.put(version.weights_key, b"poison")
    with pytest.raises(CorruptObjectError, match=r"models/melgan/a/1/model\.safetensors"):
        models.read_weights(version)


def test_what_was_found_out_lies_beside_the_weights_and_may_be_replaced(
    models: ModelStore, store: FolderStore
) -> None:
    version = save(models, "a", 1)
    assert version.figures == models.pictures(version) == {}
    for distance in (1.5, 0.75):
        described = models.describe(
            version,
            figures={"stft_distance": distance, "items": 16},
            card=f"# A card, {distance}",
            pictures={"spectrogram.png": b"png %f" % distance},
        )
        assert described.figures == {"stft_distance": distance, "items": 16.0}
        assert models.find("melgan", "a") == described
        assert list(models.list("melgan")) == [described]
        assert models.read_card(described) == f"# A card, {distance}"
    assert store.read("models/melgan/a/1/spectrogram.png") == b"png 0.750000"
    assert models.pictures(described) == {"spectrogram.png": b"png 0.750000"}
    assert models.read_weights(described) == b"w"
    assert list(store.keys("models/melgan/a/1/")) == [
        f"models/melgan/a/1/{name}"
        for name in (
            "card.md",
            "config.json",
            "figures.json",
            "model.safetensors",
            "spectrogram.png",
        )
    ]


def test_figures_are_those_of_a_step(models: ModelStore) -> None:
    first = save(models, "a", 1)
    save(models, "a", 2)
    models.describe(first, figures={"error": 1.0}, card="", pictures={})
    assert models.find("melgan", "a@1").figures == {"error": 1.0}
    assert models.find("melgan", "a@2").figures == {}


def test_a_version_that_is_saved_again_keeps_its_card(models: ModelStore) -> None:
    save(models, "k3x9q1ab", 1)
    models.describe(models.find("melgan", "k3x9q1ab"), figures={}, card="judged", pictures={})
    save(models, "k3x9q1ab", 1)
    assert models.read_card(models.find("melgan", "k3x9q1ab")) == "judged"


def test_nothing_is_written_of_a_description_that_cannot_be(
    models: ModelStore, store: FolderStore
) -> None:
    version = save(models, "a", 1)
    before = list(store.keys(""))
    with pytest.raises(InvalidInputError, match="error is nan"):
        models.describe(version, figures={"error": float("nan")}, card="x", pictures={})
    for name in ("model.safetensors", "../b.png", "B.png", "a/b.png"):
        with pytest.raises(InvalidInputError, match="picture's name"):
            models.describe(version, figures={}, card="x", pictures={name: b""})
    assert list(store.keys("")) == before
    assert models.read_card(version) == "# A card"


def test_a_model_whose_figures_are_damaged_is_there_without_them(
    models: ModelStore, store: FolderStore
) -> None:
    version = save(models, "a", 1)
    for content in (b"{", b"[]", b'{"error": "low"}'):
        store.put("models/melgan/a/1/figures.json", content)
        assert models.find("melgan", "a") == version
    # What is left where a deletion was cut short is no model.
    store.delete("models/melgan/a/1/config.json")
    with pytest.raises(NotFoundError):
        models.find("melgan", "a@1")


def test_a_description_that_is_cut_short_leaves_the_former_figures(tmp_path: Path) -> None:
    class Stopping(FolderStore):
        """Stops before the write that `puts_left` names, as a kill there does."""

        puts_left = 99

        def put(self, key: str, content: Content) -> StoredObject:
            if not self.puts_left:
                raise InterruptedError
            self.puts_left -= 1
            return super().put(key, content)

    store = Stopping(tmp_path)
    models = ModelStore(store)
    version = save(models, "a", 1)
    models.describe(version, figures={"error": 1.0}, card="first", pictures={"a.png": b"1"})
    for puts in range(3):
        store.puts_left = puts
        with pytest.raises(InterruptedError):
            models.describe(
                version, figures={"error": 2.0}, card="second", pictures={"a.png": b"2"}
            )
        assert models.find("melgan", "a").figures == {"error": 1.0}
    store.puts_left = 3
    models.describe(version, figures={"error": 2.0}, card="second", pictures={"a.png": b"2"})
    assert models.find("melgan", "a").figures == {"error": 2.0}
