"""`demiurge predict` at somebody's predictor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks, write_tracks
from services.cli.main import app
from tests.servers.predictors import FEATURES, HOP, RATE, WINDOW, Sound, served


def test_sounds_that_end_alike_go_on_each_by_chances_of_their_own(tmp_path: Path) -> None:
    values = np.zeros((WINDOW, len(FEATURES)), np.float32)
    owl = DescriptorTrack(FEATURES, values, RATE, HOP, "owl.wav")
    given, one, two = (tmp_path / name for name in ("in.json", "one.json", "two.json"))
    given.write_bytes(write_tracks([owl, replace(owl, source="wren.wav")]))
    with served(Sound()) as address:
        for out in (one, two):
            call = ["predict", str(given), "--predictor", "hum", "--steps", "4", "--out", str(out)]
            done = CliRunner().invoke(
                app, [*call, "--predictor-address", address], catch_exceptions=False
            )
            assert done.exit_code == 0, done.output
    first, second = read_tracks(one.read_bytes(), source="one")
    assert (first.source, second.source) == ("owl.wav", "wren.wav")
    assert not np.array_equal(first.values, second.values)
    assert one.read_bytes() == two.read_bytes()
