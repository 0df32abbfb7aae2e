"""Trainers made from recordings, as somebody at a terminal sees it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from services.cli.corpus import folder_corpus
from services.cli.progress import Reporter
from services.cli.training.families import Site, make, preset
from services.learning.array_cache import ArrayCache
from services.learning.world import ALONE


class Notes(Reporter):
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        raise AssertionError(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.told.append((name, completed, total))


def test_all_that_an_unagan_prepares_is_told_from_the_first_to_the_last(tmp_path: Path) -> None:
    for number in range(3):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 22_050)
        soundfile.write(tmp_path / f"{number}.wav", noise, 44_100)
    settings = preset("unagan", "demo-cpu")
    narrow = replace(settings.networks, middle_dim=8, num_groups=2)
    notes = Notes()

    make(
        "unagan",
        replace(settings, networks=narrow, segment_seconds=0.1),
        0,
        Site(folder_corpus(tmp_path), "cpu", ALONE, ArrayCache(None), notes),
    )

    assert notes.told == [
        (name, done, 3)
        for name in ("preparing recordings", "preparing mels")
        for done in range(1, 4)
    ]
