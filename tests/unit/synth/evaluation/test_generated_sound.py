from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.synth.corpus.clips import Clip, split_clips
from services.synth.evaluation.frechet import (
    Gaussian,
    Standard,
    frechet_distance,
    half_to_half,
    mfcc_frames,
    spread,
)
from services.synth.evaluation.generated_sound import GeneratedSound, judge_unagan
from services.synth.evaluation.held_out import divided
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator as Vocoder
from services.synth.melgan.generator import MelGanSettings
from services.synth.unagan.generator import Unagan, UnaganSettings, build_generator

RECORDED = Path(__file__).parents[4] / "examples" / "corpus" / "recorded"
RATE = 44_100
MEL = MelSettings(sample_rate_hertz=RATE, n_fft=256, hop_length=64, win_length=256, n_mels=16)
FEW = GeneratedSound(items=3, seconds=0.2, splits=4)
FIGURES = {
    "frechet_distance",
    "frechet_distance_corpus",
    "frechet_distance_training",
    "frechet_distance_half_to_half",
    "frechet_distance_noise",
    "frechet_items",
    "spread_between_seeds",
    "silent_share",
    "clipped_share",
}


def recording(name: str, seconds: float = 1.5) -> Clip:
    samples, _ = soundfile.read(
        RECORDED / f"{name}.flac", dtype="float32", always_2d=True, frames=round(seconds * RATE)
    )
    return Clip(f"{name}.flac", samples.mean(axis=1))


@pytest.fixture(scope="module")
def corpus() -> list[Clip]:
    return [recording(name) for name in ("ambi_choir", "guit_em9", "perc_bell", "ambi_drone")]


def gaussian(mean: list[float], deviations: list[float]) -> Gaussian:
    return Gaussian(np.array(mean), np.diag(np.square(deviations)))


def unagan(mean: float = -2.0, std: float = 0.5) -> Unagan:
    settings = UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, num_groups=2, mel=MEL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = build_generator(settings).eval().requires_grad_(False)
    bands = torch.ones(MEL.n_mels)
    return Unagan(settings, generator, mean * bands, std * bands)


def vocoder(mel: MelSettings = MEL) -> Vocoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = MelGanSettings(variant="original", ngf=2, ratios=(8, 8), mel=mel)
        return Vocoder(settings).remove_weight_norm().eval().requires_grad_(False)


def test_the_frechet_distance_of_known_gaussians_is_the_formula_s() -> None:
    standard = gaussian([0, 0, 0], [1, 1, 1])
    assert frechet_distance(standard, standard) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(standard, gaussian([3, 0, 4], [1, 1, 1])) == pytest.approx(25)
    # Diagonal covariances: the squared differences of the deviations.
    assert frechet_distance(standard, gaussian([0, 0, 1], [2, 1, 4])) == pytest.approx(1 + 1 + 9)
    # A point has no spread: singular, and no trouble.
    point = gaussian([0, 0, 0], [0, 0, 0])
    assert frechet_distance(standard, point) == pytest.approx(3)
    assert frechet_distance(point, standard) == pytest.approx(3)


def test_the_frechet_distance_of_drawn_gaussians_grows_with_the_shift_of_their_means() -> None:
    random = np.random.default_rng(0)
    mixing = random.standard_normal((13, 13))
    drawn = Gaussian.of([random.standard_normal((20_000, 13)) @ mixing])
    distances = []
    for shift in (1, 2, 4, 8):
        frames = random.standard_normal((20_000, 13)) @ mixing + shift
        other = Gaussian.of([frames])
        distances.append(frechet_distance(drawn, other))
        assert distances[-1] == pytest.approx(13 * shift**2, rel=0.15)
        assert distances[-1] == pytest.approx(frechet_distance(other, drawn), rel=1e-9)
    assert distances == sorted(distances)


def test_a_turned_gaussian_is_as_far_as_its_axes_say() -> None:
    # Deviations 3 and 1, turned by a quarter: each axis differs by 2.
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    upright = gaussian([0, 0], [3, 1])
    turned = Gaussian(upright.mean, quarter @ upright.covariance @ quarter.T)
    assert frechet_distance(upright, turned) == pytest.approx(8)


def test_real_sound_is_nearer_to_itself_and_its_kind_than_to_noise(corpus: list[Clip]) -> None:
    choir, guitar, *_ = [Gaussian.of([mfcc_frames(clip.samples, RATE)]) for clip in corpus]
    noise = np.random.default_rng(0).standard_normal(RATE) * 0.1
    white = Gaussian.of([mfcc_frames(noise, RATE, normalised=False)])
    assert frechet_distance(choir, choir) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(choir, guitar) == pytest.approx(frechet_distance(guitar, choir))
    assert 10 < frechet_distance(choir, guitar) < frechet_distance(choir, white) / 3


def test_each_coefficient_weighs_alike_whatever_its_range(corpus: list[Clip]) -> None:
    recorded = [mfcc_frames(clip.samples, RATE) for clip in corpus]
    standard = Standard.of(recorded)
    together = np.concatenate(standard.apply(recorded))
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(together.std(axis=0), 1)

    def distance(sounds: list[np.ndarray]) -> float:
        first, second, *_ = Standard.of(sounds).apply(sounds)
        return frechet_distance(Gaussian.of([first]), Gaussian.of([second]))

    stretched = [frames * np.geomspace(100, 0.1, 13) + 7 for frames in recorded]
    assert distance(stretched) == pytest.approx(distance(recorded))


def test_a_coefficient_that_never_varies_stays_finite() -> None:
    constant = np.ones((5, 13))
    np.testing.assert_array_equal(Standard.of([constant]).apply([constant])[0], 0)


def test_all_recordings_set_the_standard_whichever_were_kept_back(corpus: list[Clip]) -> None:
    one, other = (
        judge_unagan(unagan(), None, training, held_out, FEW).figures
        for training, held_out in ((corpus[:1], corpus[1:]), (corpus[2:], corpus[:2]))
    )
    for name in ("frechet_distance_corpus", "spread_between_seeds"):
        assert one[name] == pytest.approx(other[name])
    assert one["frechet_distance"] != pytest.approx(other["frechet_distance"])
    # Squared deviations: raw coefficients of the same halves are hundreds apart.
    assert 0 < one["frechet_distance_half_to_half"] < 13 * 4


def test_loudness_is_no_timbre(corpus: list[Clip]) -> None:
    loud, soft = (mfcc_frames(corpus[0].samples * gain, RATE) for gain in (1, 0.01))
    np.testing.assert_allclose(loud, soft, atol=0.05)
    with pytest.raises(InvalidInputError, match="silent"):
        mfcc_frames(np.zeros(5000, np.float32), RATE)


def test_halves_are_drawn_by_seed_and_of_whole_files(corpus: list[Clip]) -> None:
    frames = [mfcc_frames(clip.samples, RATE) for clip in corpus]
    first = half_to_half(frames, splits=5, seed=1)
    assert first == half_to_half(frames, splits=5, seed=1) != half_to_half(frames, splits=5, seed=2)
    # The same four files twice: a split by file finds halves that differ, one by time would not.
    assert first > 100
    twins = [frames[0]] * 4
    assert half_to_half(twins, splits=5, seed=1) == pytest.approx(0, abs=1e-6)


def test_a_single_recording_is_halved_by_time(corpus: list[Clip]) -> None:
    alone = [mfcc_frames(corpus[0].samples, RATE)]
    assert 0 < half_to_half(alone, splits=5, seed=0) < np.inf
    with pytest.raises(InvalidInputError, match="no halves"):
        half_to_half([alone[0][:1]], splits=5, seed=0)


def test_spread_is_the_mean_distance_of_means() -> None:
    frames = [np.full((2, 13), value) for value in (0.0, 1.0, 3.0)]
    assert spread(frames) == pytest.approx(np.sqrt(13) * (1 + 3 + 2) / 3)
    assert spread(frames[:1]) == 0
    assert spread([frames[0]] * 3) == 0


@pytest.mark.parametrize("voiced", [True, False])
def test_an_unagan_is_judged_beside_halves_and_noise(corpus: list[Clip], voiced: bool) -> None:
    voice = vocoder() if voiced else None
    judgement = judge_unagan(unagan(), voice, corpus[:3], corpus[3:], FEW)
    figures = judgement.figures
    assert set(figures) == FIGURES
    assert figures["frechet_items"] == 3
    assert figures["frechet_distance"] > 0
    assert figures["frechet_distance_noise"] > figures["frechet_distance_half_to_half"] > 0
    assert 0 < figures["spread_between_seeds"] < 1
    assert [len(row) for row in judgement.rows] == [3, 3]
    assert judgement.rows[0][0].title == "recording: ambi_drone.flac"
    assert "Held out: 1, 1.5 s; of the training: 3, 4.5 s" in judgement.remarks[0]
    assert ("Griffin-Lim" in judgement.remarks[0]) is not voiced
    assert judge_unagan(unagan(), voice, corpus[:3], corpus[3:], FEW).figures == figures


def test_a_model_that_sings_the_same_for_every_seed_has_no_spread(corpus: list[Clip]) -> None:
    figures = judge_unagan(unagan(std=0), None, corpus[:3], corpus[3:], FEW).figures
    # Griffin-Lim's first phases are all that differs.
    assert figures["spread_between_seeds"] < 0.1
    assert figures["silent_share"] == 0


def test_silence_is_counted_and_not_compared(corpus: list[Clip]) -> None:
    figures = judge_unagan(unagan(mean=-7, std=0), None, corpus[:3], corpus[3:], FEW).figures
    assert figures["silent_share"] == 1
    assert set(figures) == FIGURES - {
        "frechet_distance",
        "frechet_distance_corpus",
        "spread_between_seeds",
    }


def test_sound_at_its_limit_is_counted(corpus: list[Clip]) -> None:
    figures = judge_unagan(unagan(mean=2), None, corpus[:3], corpus[3:], FEW).figures
    assert figures["clipped_share"] == 1


def test_silent_recordings_are_left_out_and_cannot_judge_alone(corpus: list[Clip]) -> None:
    silent = Clip("silent.wav", np.zeros(5000, np.float32))
    judgement = judge_unagan(unagan(), None, [silent], [*corpus[:2], silent], FEW)
    assert "Held out: 2, 3.0 s; of the training: 0" in judgement.remarks[0]
    assert set(judgement.figures) == FIGURES - {"frechet_distance_training"}
    with pytest.raises(InvalidInputError, match="silent"):
        judge_unagan(unagan(), None, corpus, [silent], FEW)


def test_models_that_do_not_fit_and_models_that_diverged_are_told(corpus: list[Clip]) -> None:
    other = MelSettings(sample_rate_hertz=RATE, n_fft=256, hop_length=64, win_length=128, n_mels=16)
    with pytest.raises(SettingsMismatchError, match="win_length is 256 in u@1 and 128 in m@2"):
        judge_unagan(unagan(), vocoder(other), [], corpus, FEW, unagan_id="u@1", vocoder_id="m@2")
    with pytest.raises(InvalidInputError, match="diverged"):
        judge_unagan(unagan(mean=float("nan")), vocoder(), [], corpus, FEW)


def test_recordings_are_divided_as_the_training_divided_them(corpus: list[Clip]) -> None:
    config = {"training": {"validation_files": ["perc_bell.flac"]}}
    training, held_out = divided(config, corpus)
    assert [clip.name for clip in held_out] == ["perc_bell.flac"]
    assert [clip.name for clip in training] == [
        "ambi_choir.flac",
        "guit_em9.flac",
        "ambi_drone.flac",
    ]
    missing = {"training": {"validation_files": ["perc_bell.flac", "a.wav", "b.wav"]}}
    with pytest.raises(NotFoundError, match=r"^a\.wav and 1 more was kept back") as caught:
        divided(missing, corpus)
    assert caught.value.culprit == "a.wav"
    with pytest.raises(InvalidInputError, match="no recordings"):
        divided(config, [])


def test_of_one_recording_its_end_was_kept_back(corpus: list[Clip]) -> None:
    one = corpus[:1]
    config = {"training": {"validation_files": [one[0].name], "validation_share": 0.25, "seed": 3}}
    training, held_out = divided(config, one)
    expected = split_clips(one, 0.25, 3)
    for found, wanted in zip((training, held_out), expected, strict=True):
        np.testing.assert_array_equal(found[0].samples, wanted[0].samples)


def test_a_model_of_foreign_training_is_judged_by_all(corpus: list[Clip]) -> None:
    assert divided({"family": "melgan"}, corpus) == ([], corpus)
