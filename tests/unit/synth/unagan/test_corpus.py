import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from services.learning.array_cache import ArrayCache
from services.synth.corpus.augmentation import Augmentation
from services.synth.corpus.clips import Clip
from services.synth.unagan.corpus import Corpus, audible, split_corpus
from tests.unit.synth.unagan.trainers import SMALL, clip, clips


def crops(corpus: Corpus, count: int) -> list[torch.Tensor]:
    return [corpus.crop(np.random.default_rng(number)) for number in range(count)]


def tone(hertz: float, seconds: float = 1.0) -> Clip:
    time = np.arange(round(44_100 * seconds)) / 44_100
    return Clip(f"{hertz}.wav", np.sin(2 * np.pi * hertz * time).astype(np.float32) / 2)


def test_clips_of_every_length_are_learned_from_by_their_length() -> None:
    # 0.1 s crops: one clip is of a single sample, one shorter than a crop, one far longer.
    short, long = clip("short.wav", 0.05, seed=1), clip("long.wav", 1.0, seed=2)
    corpus = Corpus(SMALL, [clip("click.wav", 0), short, long])
    one_short = crops(Corpus(SMALL, [short], (corpus.mean, corpus.std)), 1)[0]

    drawn = crops(corpus, 400)

    from_short = sum(torch.equal(crop, one_short) for crop in drawn)
    assert {crop.shape for crop in drawn} == {(16, SMALL.segment_frames)}
    assert 400 * 0.02 < from_short < 400 * 0.10


def test_a_short_clip_is_looped_and_not_padded_with_silence() -> None:
    corpus = Corpus(SMALL, [clip("short.wav", 0.02)])
    crop = crops(corpus, 1)[0]

    assert (crop * corpus.std[:, None] + corpus.mean[:, None]).min() > -3


def test_the_corpus_is_z_scored_band_by_band_even_where_a_band_never_changes() -> None:
    corpus = Corpus(SMALL, [clip("a.wav", 1.0)])
    everything = torch.cat(corpus.batches(2)).transpose(0, 1).flatten(1)
    steady = Corpus(SMALL, [tone(440)])

    # The last frames are short of a whole crop and so left out of the batches.
    torch.testing.assert_close(everything.mean(dim=1), torch.zeros(16), atol=0.1, rtol=0)
    torch.testing.assert_close(everything.std(dim=1), torch.ones(16), atol=0.1, rtol=0)
    assert torch.cat(steady.batches(2)).isfinite().all()


def test_each_clip_is_peak_normalised_by_itself() -> None:
    quiet, loud = (Corpus(SMALL, [clip("a.wav", 0.2, gain)]) for gain in (0.01, 0.9))

    torch.testing.assert_close(quiet.mean, loud.mean, atol=1e-3, rtol=0)


def test_mels_from_a_cache_are_those_made_without_one(tmp_path: Path) -> None:
    made = Corpus(SMALL, clips())
    kept = [Corpus(SMALL, clips(), cache=ArrayCache(tmp_path)) for _ in range(2)]

    for corpus in kept:
        torch.testing.assert_close(corpus.mean, made.mean, atol=0, rtol=0)
        torch.testing.assert_close(crops(corpus, 5), crops(made, 5), atol=0, rtol=0)
    assert len(list(tmp_path.rglob("*.npy"))) == len(clips())


def test_augmented_crops_are_of_the_same_sound_at_another_speed() -> None:
    faster = replace(SMALL, augmentation=Augmentation(speed=0.3))
    plain, augmented = Corpus(SMALL, [tone(5000)]), Corpus(faster, [tone(5000)])
    loudest = {
        corpus: {
            int((crop * corpus.std[:, None] + corpus.mean[:, None]).mean(dim=1).argmax())
            for crop in crops(corpus, 40)
        }
        for corpus in (plain, augmented)
    }

    assert torch.equal(plain.mean, augmented.mean)
    assert len(loudest[plain]) == 1
    assert loudest[plain] < loudest[augmented]


def test_a_crop_made_as_it_is_drawn_is_that_of_the_whole_mel() -> None:
    sound = clip("a.wav", 1.0)
    # Inverting changes no magnitude, so it shows the way that augmented crops are made.
    inverted = replace(SMALL, augmentation=Augmentation(polarity=True))
    whole = Corpus(SMALL, [sound])
    mel = torch.cat([batch[0] for batch in whole.batches(1)], dim=1)

    crop = Corpus(inverted, [sound])._mel_of(
        sound.samples[: (SMALL.segment_frames + 4) * 256] / np.float32(sound.peak)
    )

    torch.testing.assert_close(crop, mel[:, 2 : 2 + SMALL.segment_frames], atol=1e-4, rtol=0)


def test_augmented_crops_of_a_quiet_recording_are_those_of_a_loud_one() -> None:
    augmented = replace(SMALL, augmentation=Augmentation(gain_decibels=6, speed=0.1))
    loud = clip("a.wav", 1.0, 1.0)
    quiet = Clip("a.wav", loud.samples / np.float32(16))

    for one, other in zip(
        *(crops(Corpus(augmented, [heard]), 5) for heard in (loud, quiet)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_augmented_crops_of_clips_shorter_than_one_are_looped() -> None:
    corpus = Corpus(replace(SMALL, augmentation=Augmentation(speed=0.3)), [tone(5000, 0.01)])

    for crop in crops(corpus, 5):
        # Silence would be at -5.
        assert (crop * corpus.std[:, None] + corpus.mean[:, None]).max(dim=0).values.min() > -2


def test_recordings_in_files_stay_there_when_their_crops_are_augmented(tmp_path: Path) -> None:
    sound = clip("a.wav", 20.0)
    np.save(tmp_path / "a.npy", sound.samples)
    kept = Clip("a.wav", np.load(tmp_path / "a.npy", mmap_mode="r"), origin="a")
    settings = replace(SMALL, augmentation=Augmentation(speed=0.1))
    cache = ArrayCache(tmp_path / "cache")
    Corpus(settings, [kept], cache=cache)

    tracemalloc.start()
    corpus = Corpus(settings, [kept], cache=cache)
    crops(corpus, 3)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < sound.samples.nbytes / 10
    assert most < sound.samples.nbytes


def test_what_validates_is_at_most_so_many_crops_taken_evenly() -> None:
    corpus = Corpus(SMALL, [clip("a.wav", 1.0, seed=1), clip("b.wav", 1.0, seed=2)])
    everything = torch.cat(corpus.batches(4))

    few = torch.cat(corpus.batches(4, most=3))

    assert len(everything) == 16
    assert torch.equal(few, everything[[0, 8, 15]])
    assert torch.equal(torch.cat(corpus.batches(4, most=16)), everything)
    assert torch.equal(torch.cat(corpus.batches(4, most=99)), everything)


def test_what_is_done_of_all_mels_is_told_as_one_count() -> None:
    told: list[tuple[int, int]] = []

    learned, held_out = split_corpus(SMALL, clips(5), 0, tell=lambda *each: told.append(each))

    assert (len(learned.clips), len(held_out.clips)) == (4, 1)
    assert told == [(done, 5) for done in range(1, 6)]


def test_silent_clips_are_told_from_audible_ones() -> None:
    silence, heard = Clip("silence.wav", np.zeros(100, np.float32)), clip("a.wav", 0.1)

    assert audible([silence, heard, silence]) == [heard]
