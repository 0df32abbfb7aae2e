import json

import numpy as np

from services.playback.edit_list import edit_list
from services.playback.mixer import Mixer
from services.playback.segments import Placement, RenderSettings

HOP = 1024


def render_and_list(mixer):
    piece = np.concatenate(list(mixer.render()))
    return piece, json.loads(edit_list(mixer))


def test_an_edit_list_says_what_came_from_where(sounds, table_of, noise):
    sources = [
        sounds.add("birds/wren 1.wav".replace("/", "-"), noise(9 * HOP, 2)),
        sounds.add("unheard.wav", noise(9 * HOP)),
        sounds.add("ünï.wav", noise(9 * HOP), rate=22_050),
    ]
    table = table_of(sources, [(2, 4 * HOP), (2, 5 * HOP), (0, 8 * HOP + 500)])
    _, content = render_and_list(Mixer(table, sounds.read))
    segments = content.pop("segments")
    listed = content.pop("sources")
    assert content == {
        "version": 1,
        "sample_rate_hertz": 44_100,
        "sample_count": 3 * HOP,
        "channel_count": 2,
        "crossfade_samples": 970,
        "placement": "published",
        "table_sample_rate_hertz": 44_100,
        "hop_length_samples": HOP,
    }
    assert [source["key"] for source in listed] == ["birds-wren 1.wav", "ünï.wav"]
    assert listed[1] == {
        "key": "ünï.wav",
        "sha256": "0" * 64,
        "sample_rate_hertz": 22_050,
        "sample_count": 9 * HOP,
        "channel_count": 1,
    }
    assert segments == [
        {
            "output_start_sample": 0,
            "length_samples": 2 * HOP,
            "source": "ünï.wav",
            "source_start_sample": 2 * HOP,
            "matched_start_sample": 4 * HOP,
            "first_frame": 0,
            "frame_count": 2,
            "distances": [0.0, 0.5],
        },
        {
            "output_start_sample": 2 * HOP,
            "length_samples": HOP,
            "source": "birds-wren 1.wav",
            "source_start_sample": 8 * HOP,  # shifted back to be whole
            "matched_start_sample": 8 * HOP + 500,
            "first_frame": 2,
            "frame_count": 1,
            "distances": [1.0],
        },
    ]


def test_the_piece_can_be_made_again_from_its_edit_list(sounds, table_of, noise):
    samples = {f"{i}.wav": noise(5 * HOP + 99 * i, seed=i) for i in range(4)}
    sources = [sounds.add(key, sound) for key, sound in samples.items()]
    generator = np.random.default_rng(3)
    matches = [
        (int(generator.integers(4)), int(generator.integers(5 * HOP + 1))) for _ in range(30)
    ]
    settings = RenderSettings(crossfade_seconds=0, placement=Placement.CENTERED)
    piece, content = render_and_list(Mixer(table_of(sources, matches), sounds.read, settings))
    again = np.zeros_like(piece)
    for segment in content["segments"]:
        start, length = segment["source_start_sample"], segment["length_samples"]
        begin = segment["output_start_sample"]
        again[begin : begin + length] = samples[segment["source"]][start : start + length]
    np.testing.assert_array_equal(again, piece)
