import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.audio.match_table import MatchTable, SourceRef
from services.audio.reading import Sound
from services.playback.mixer import Mixer
from services.playback.segments import Placement, RenderSettings, Timeline

RATES = st.sampled_from([8_000, 16_000, 22_050, 32_000, 44_100, 48_000])


@st.composite
def pieces(draw):
    """A match table, a reader of its sources, the sources and settings."""
    rate = draw(RATES)
    hop = draw(st.integers(1, 300))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sources = [
        Sound(
            generator.uniform(-1, 1, (length, channels)).astype(np.float32),
            draw(st.sampled_from([rate, rate, 11_025, 44_100])),
            f"{number}.wav",
        )
        for number, (length, channels) in enumerate(
            draw(
                st.lists(st.tuples(st.integers(1, 1500), st.integers(1, 3)), min_size=1, max_size=3)
            )
        )
    ]
    matches = []
    for _ in range(draw(st.integers(1, 12))):
        if matches and draw(st.booleans()):
            index, start = matches[-1][0], matches[-1][1] + hop
        else:
            index, start = draw(st.integers(0, len(sources) - 1)), draw(st.integers(0, 1500))
        sound = sources[index]
        matches.append((index, min(start, sound.frame_count * rate // sound.sample_rate_hertz)))
    output_rate = draw(st.one_of(st.just(0), RATES))
    assume(Timeline(rate, hop, output_rate or rate).boundary(len(matches)))
    columns = np.array(matches, np.uint64)
    table = MatchTable(
        tuple(SourceRef(str(number), "0" * 64, 1, "") for number in range(len(sources))),
        rate,
        hop,
        columns[:, :1].astype(np.uint32),
        columns[:, 1:],
        np.zeros((len(matches), 1), np.float32),
    )
    render_settings = RenderSettings(
        crossfade_seconds=draw(st.floats(0, 0.05)),
        placement=draw(st.sampled_from(Placement)),
        sample_rate_hertz=output_rate,
        channel_count=draw(st.integers(0, 3)),
    )
    return table, (lambda ref: sources[int(ref.key)]), sources, render_settings


def rendered(mixer, block_frames=4096):
    return np.concatenate(list(mixer.render(block_frames)))


@settings(max_examples=150, deadline=None)
@given(pieces())
def test_n_frames_last_exactly_n_hops(piece):
    table, read, _, render_settings = piece
    mixer = Mixer(table, read, render_settings)
    samples = rendered(mixer)
    rate = render_settings.sample_rate_hertz or table.sample_rate_hertz
    exact = table.frame_count * table.hop_length_samples * rate
    assert samples.shape == (mixer.sample_count, mixer.channel_count)
    assert abs(mixer.sample_count * table.sample_rate_hertz - exact) * 2 <= table.sample_rate_hertz
    # Segments cover the piece without gap or overlap.
    ends = [segment.output_start_sample + segment.length_samples for segment in mixer.segments]
    begins = [segment.output_start_sample for segment in mixer.segments]
    assert begins == [0, *ends[:-1]]
    assert ends[-1] == mixer.sample_count


@settings(max_examples=100, deadline=None)
@given(pieces(), st.integers(1, 3000), st.integers(1, 3000))
def test_the_sound_does_not_depend_on_the_size_of_blocks(piece, one, other):
    table, read, _, render_settings = piece
    mixer = Mixer(table, read, render_settings)
    np.testing.assert_array_equal(rendered(mixer, one), rendered(mixer, other))
    blocks = list(mixer.render(one))
    assert [len(block) for block in blocks[:-1]] == [one] * (len(blocks) - 1)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 30),
    st.integers(0, 399),
    st.integers(1, 2),
    st.integers(0, 2**32 - 1),
)
def test_a_file_matched_frame_by_frame_comes_back(hop, frames, surplus, channels, seed):
    length = hop * frames + surplus % hop
    samples = np.random.default_rng(seed).uniform(-1, 1, (length, channels)).astype(np.float32)
    starts = np.arange(frames, dtype=np.uint64)[:, np.newaxis] * np.uint64(hop)
    table = MatchTable(
        (SourceRef("a", "0" * 64, 1, ""),),
        44_100,
        hop,
        np.zeros((frames, 1), np.uint32),
        starts,
        np.zeros((frames, 1), np.float32),
    )
    piece = rendered(Mixer(table, lambda ref: Sound(samples, 44_100, ref.key)))
    np.testing.assert_array_equal(piece, samples[: hop * frames])


@settings(max_examples=150, deadline=None)
@given(pieces(), st.floats(0.001, 0.05), st.sampled_from(Placement))
def test_no_step_is_larger_than_in_the_sources_and_nothing_is_louder(piece, fade, placement):
    table, _, sources, _ = piece
    # At the sources' own rate: what resampling adds is not the mixer's.
    sources = [Sound(sound.samples, table.sample_rate_hertz, sound.name) for sound in sources]
    table_end = [sound.frame_count for sound in sources]
    starts = np.minimum(
        table.start_samples, np.array(table_end, np.uint64)[table.source_indices]
    ).astype(np.uint64)
    table = MatchTable(
        table.sources,
        table.sample_rate_hertz,
        table.hop_length_samples,
        table.source_indices,
        starts,
        table.distances,
    )
    mixer = Mixer(
        table,
        lambda ref: sources[int(ref.key)],
        RenderSettings(crossfade_seconds=fade, placement=placement),
    )
    piece = rendered(mixer)
    padded = [np.pad(sound.samples, ((0, 1), (0, 0))) for sound in sources]
    largest_step = max(float(np.abs(np.diff(sound, axis=0)).max()) for sound in padded)
    loudest = max(float(np.abs(sound.samples).max()) for sound in sources)
    if mixer.crossfade_samples:
        # While fading, the sources' own steps and the change of gain add up.
        allowed = largest_step + 2 * loudest / mixer.crossfade_samples + 1e-6
        if len(piece) > 1:
            assert float(np.abs(np.diff(piece, axis=0)).max()) <= allowed
    assert float(np.abs(piece).max()) <= loudest + 1e-6
    assert mixer.peak == float(np.abs(piece).max())


@given(RATES, RATES, st.integers(1, 4096), st.integers(0, 10**7))
def test_boundaries_never_drift_and_hops_differ_by_one_sample_at_most(table_rate, rate, hop, frame):
    timeline = Timeline(table_rate, hop, rate)
    begin, end = timeline.boundary(frame), timeline.boundary(frame + 1)
    assert abs(2 * (begin * table_rate - frame * hop * rate)) <= table_rate
    assert timeline.shortest_hop <= end - begin <= timeline.longest_hop
    assert timeline.longest_hop - timeline.shortest_hop <= 1
