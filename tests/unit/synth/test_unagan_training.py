from dataclasses import replace

import numpy as np
import pytest
import torch

from services.errors import InvalidInputError, NotFoundError
from services.synth.clips import Clip
from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.unagan.generator import UnaganSettings, load_generator
from services.synth.unagan.losses import Equilibrium, distance
from services.synth.unagan.presets import UnaganTraining, preset
from services.synth.unagan.training import Corpus, UnaganTrainer, mel_distance, peak_normalised_mel

MEL = MelSettings(n_mels=16)
SMALL = UnaganTraining(
    networks=UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, num_groups=2, mel=MEL),
    segment_seconds=0.1,
    batch_size=3,
    learning_rate=1e-3,
)


def clip(name: str, seconds: float, gain: float = 0.5, seed: int = 0) -> Clip:
    """Noise that fades in, so that its moments differ."""
    random = np.random.default_rng(seed)
    count = max(int(seconds * 44_100), 1)
    samples = random.uniform(-gain, gain, count) * np.linspace(0.05, 1, count)
    return Clip(name, samples.astype(np.float32))


def clips(count: int = 4, seconds: float = 0.5) -> list[Clip]:
    return [clip(f"{number}.wav", seconds, seed=number) for number in range(count)]


def trainer(settings: UnaganTraining = SMALL, count: int = 4, seed: int = 0) -> UnaganTrainer:
    return UnaganTrainer(settings, clips(count), device="cpu", seed=seed)


def as_floats(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(loss.ndim == 0 for loss in losses.values())
    return {name: float(loss) for name, loss in losses.items()}


def test_began_weighs_generated_sound_by_k_within_its_bounds() -> None:
    equilibrium = Equilibrium(gamma=0.5, lambda_k=0.1, k=torch.tensor(0.2))
    real, generated = torch.tensor(0.8), torch.tensor(0.3)

    assert equilibrium.discriminator_loss(real, generated).item() == pytest.approx(0.74)
    assert equilibrium.convergence(real, generated).item() == pytest.approx(0.9)
    equilibrium.update(real, generated)
    assert equilibrium.k.item() == pytest.approx(0.21)
    equilibrium.update(torch.tensor(0.0), torch.tensor(100.0))
    assert equilibrium.k.item() == 0.0
    assert distance(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])).item() == 1.5


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, cycle=False),
        replace(SMALL, cycle=False, networks=replace(SMALL.networks, variant="nonhierarchical")),
    ],
    ids=["with cycles", "without", "nonhierarchical"],
)
def test_every_form_trains_validates_and_sings(settings: UnaganTraining) -> None:
    training = trainer(settings)
    before = training.weights()

    losses = as_floats(training.step())
    figures = training.validate()

    assert {"generator", "discriminator", "real", "generated", "convergence", "k"} <= set(losses)
    assert ("noise_cycle" in losses) == ("mel_cycle" in losses) == settings.cycle
    assert np.isfinite([*losses.values(), *figures.values()]).all()
    assert training.weights() != before
    mel = load_generator(training.config(), training.weights()).sing(30, [1, 2])
    assert mel.shape == (2, 16, 30)
    assert training.config()["validation_figure"] in figures


def test_training_brings_the_generator_nearer_to_the_corpus() -> None:
    training = trainer()
    before = training.validate()["mel_distance"]

    for _ in range(40):
        training.step()

    assert training.validate()["mel_distance"] < before


def test_the_same_seed_trains_the_same_weights_and_another_others() -> None:
    runs = [trainer(seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        torch.manual_seed(int(torch.randint(1000, ())))
        run.step()
        run.validate()
        run.step()

    assert runs[0].weights() == runs[1].weights()
    assert runs[0].weights() != runs[2].weights()


def test_validation_repeats_itself_and_disturbs_nothing() -> None:
    looked, blind = trainer(), trainer()
    looked.step()
    blind.step()

    assert looked.validate() == looked.validate()

    assert as_floats(looked.step()) == as_floats(blind.step())


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_clips_than_a_batch_train(count: int) -> None:
    training = trainer(replace(SMALL, batch_size=5), count)

    assert np.isfinite(list(as_floats(training.step()).values())).all()
    assert np.isfinite(list(training.validate().values())).all()


def test_no_step_repeats_the_noise_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(count=2)
    heard: list[torch.Tensor] = []
    generate = training.generator.forward

    def listening(z: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
        # The second half of z is encoded from the corpus.
        heard.extend(z.detach()[: len(z) // 2].unbind())
        heard.extend(item for state in states for item in state.unbind(1))
        return generate(z, states)

    monkeypatch.setattr(training.generator, "forward", listening)
    # Two files of half a second hold ten crops: this is more than an epoch.
    for _ in range(6):
        training.step()

    distinct = {tensor.numpy().tobytes() for tensor in heard}
    assert len(distinct) == len(heard) == 6 * (3 + 3 * 6)


def test_clips_of_every_length_are_learned_from_by_their_length() -> None:
    # 0.1 s crops: one clip is of a single sample, one shorter than a crop, one far longer.
    short, long = clip("short.wav", 0.05, seed=1), clip("long.wav", 1.0, seed=2)
    corpus = Corpus(SMALL, [clip("click.wav", 0), short, long])
    random = torch.Generator().manual_seed(0)
    one_short = Corpus(SMALL, [short], (corpus.mean, corpus.std)).draw(1, random)[0]

    drawn = corpus.draw(400, random)

    from_short = sum(torch.equal(crop, one_short) for crop in drawn)
    assert drawn.shape == (400, 16, SMALL.segment_frames)
    assert 400 * 0.02 < from_short < 400 * 0.10


def test_a_short_clip_is_looped_and_not_padded_with_silence() -> None:
    spectrogram = MelSpectrogram(MEL)
    mel = peak_normalised_mel(clip("short.wav", 0.02), spectrogram, 40)

    assert mel.shape == (16, 40)
    assert mel.min() > -3


def test_each_clip_is_peak_normalised_by_itself() -> None:
    spectrogram = MelSpectrogram(MEL)
    quiet, loud = (
        peak_normalised_mel(clip("a.wav", 0.2, gain), spectrogram, 8) for gain in (0.01, 0.9)
    )

    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)


def test_silent_clips_are_left_out_and_nothing_but_silence_is_refused() -> None:
    silence = Clip("silence.wav", np.zeros(44_100, np.float32))
    heard = clip("a.wav", 1.0)

    with_silence = UnaganTrainer(SMALL, [silence, heard, silence], device="cpu", seed=0)
    without = UnaganTrainer(SMALL, [heard], device="cpu", seed=0)

    assert as_floats(with_silence.step()) == as_floats(without.step())
    assert with_silence.validate() == without.validate()
    with pytest.raises(InvalidInputError, match="nothing to learn from"):
        UnaganTrainer(SMALL, [silence], device="cpu", seed=0)


@pytest.mark.parametrize("silent", ["beginning", "end"])
def test_a_single_file_that_is_silent_on_one_side_of_the_split_trains(silent: str) -> None:
    samples = np.zeros(44_100, np.float32)
    samples[:4000] = clip("a.wav", 1.0).samples[:4000]
    if silent == "beginning":
        samples = np.ascontiguousarray(samples[::-1])

    training = UnaganTrainer(SMALL, [Clip("a.wav", samples)], device="cpu", seed=0)

    assert np.isfinite(list(as_floats(training.step()).values())).all()
    assert np.isfinite(list(training.validate().values())).all()


def test_the_corpus_is_z_scored_band_by_band_even_where_a_band_never_changes() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32)
    corpus = Corpus(SMALL, [clip("a.wav", 1.0)])
    everything = torch.cat(corpus.batches(2)).transpose(0, 1).flatten(1)
    steady = Corpus(SMALL, [Clip("tone.wav", tone)])

    # The last frames are short of a whole crop and so left out of the batches.
    torch.testing.assert_close(everything.mean(dim=1), torch.zeros(16), atol=0.1, rtol=0)
    torch.testing.assert_close(everything.std(dim=1), torch.ones(16), atol=0.1, rtol=0)
    assert torch.cat(steady.batches(2)).isfinite().all()


def test_mel_distance_tells_frozen_and_silent_mels_from_real_ones() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randn((4, 16, 100), generator=random).cumsum(dim=2) / 5
    alike = torch.randn((4, 16, 100), generator=random).cumsum(dim=2) / 5
    frozen = real[..., :1].expand_as(real)

    assert mel_distance(real, real).item() == 0
    assert mel_distance(real, alike) < mel_distance(real, frozen)
    assert mel_distance(real, alike) < mel_distance(real, torch.full_like(real, -5))


def test_crops_are_whole_columns_of_noise() -> None:
    assert preset("published-script").segment_frames == 1728
    assert replace(SMALL, segment_seconds=1e-6).segment_frames == 4


def test_presets_are_as_published() -> None:
    script, notebook = preset("published-script"), preset("published-notebook")

    assert (script.learning_rate, script.batch_size) == (1e-4, 5)
    assert (notebook.learning_rate, notebook.batch_size) == (1e-3, 10)
    assert script.networks == notebook.networks == UnaganSettings()
    assert preset("demo-cpu", MEL).networks.mel == MEL
    with pytest.raises(NotFoundError, match="published-script"):
        preset("loud")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="hierarchical"):
        replace(SMALL, networks=replace(SMALL.networks, variant="nonhierarchical"))
    with pytest.raises(InvalidInputError, match="batch_size"):
        replace(SMALL, batch_size=0)
