"""Pictures of comparisons: what is drawn of many models, and that it can be told apart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.cli.comparison import pictures as drawing
from services.cli.comparison.pictures import pictures
from services.cli.comparison.table import Facts
from services.predictor.evaluation.baselines import Persistence, TrainingMean
from services.predictor.evaluation.comparison import Comparison, compare
from services.predictor.evaluation.ground import ComparisonSettings, Contestant
from services.predictor.evaluation.material import Material
from tests.unit.predictor.music import tracks

SETTINGS = ComparisonSettings(
    places=6, horizons=(1, 10), frames=80, long_frames=0, samples=2, novelty_windows=0, orders=(1,)
)


def facts(architecture: str, preset: str, seed: int) -> Facts:
    return Facts(architecture, preset, str(seed), 700, 60.0, 10, 40)


KNOWN = {
    "a@1": facts("LSTM", "standard", 10),
    "b@1": facts("LSTM", "standard", 9),
    "c@1": facts("LSTM", "published-script", 0),
    "d@1": facts("TransformerModel", "standard", 0),
    "d@2": facts("TransformerModel", "standard", 0),
}


@pytest.fixture(scope="module")
def compared() -> Comparison:
    music = tracks(4, 300)
    material = Material.of(music[:2], music[2:])
    models = [Contestant(name, Persistence(material)) for name in KNOWN]
    return compare([*models, Contestant("e@1", TrainingMean(material))], material, SETTINGS)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, with their texts."""
    kept: list[Any] = []

    def keep(figure: Any) -> bytes:
        kept.append(figure)
        return b""

    monkeypatch.setattr(drawing, "as_png", keep)
    return kept


def test_the_first_seed_of_each_architecture_and_preset_is_drawn(
    compared: Comparison, drawn: list[Any]
) -> None:
    assert set(pictures(compared, KNOWN)) == {"trajectories.png", "errors.png", "spectra.png"}
    models = [
        "LSTM, published-script",
        "LSTM, standard",
        "TransformerModel, standard, d@1",
        "TransformerModel, standard, d@2",
        "e@1",
    ]
    trajectories, errors, _ = drawn
    rows = [axes.get_ylabel().replace("\n", " ") for axes in trajectories.axes[::4]]
    autoregression = "linear autoregression"
    told = [*models, "persistence", autoregression, f"{autoregression}, temperature 1"]
    assert rows == told
    (legend,) = errors.legends
    assert [text.get_text() for text in legend.get_texts()][:5] == models


def test_presets_of_an_architecture_share_its_colour_and_differ_by_mark(
    compared: Comparison, drawn: list[Any]
) -> None:
    pictures(compared, KNOWN)
    published, standard, other = drawn[1].axes[0].get_lines()[:3]
    assert published.get_color() == standard.get_color() != other.get_color()
    assert published.get_marker() != standard.get_marker()


def test_where_most_happens_is_the_example() -> None:
    music = tracks(4, 300)
    loud = music[3].values.copy()
    loud[200:] *= 3
    held_out = [music[2], replace(music[3], values=loud)]
    found = compare([], Material.of(music[:2], held_out), SETTINGS)
    assert found.example.startswith("3.wav")
    assert found.came.shape == (80, 39)
    assert np.ptp(found.came[:, 0]) > np.ptp(music[2].values[:80, 0])
