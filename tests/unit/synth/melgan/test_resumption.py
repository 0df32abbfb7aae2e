import io
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from services.errors import SettingsMismatchError
from services.learning.precision import Precision
from services.synth.corpus.augmentation import Augmentation
from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings, Variant
from services.synth.melgan.training import MelGanTrainer
from services.synth.melgan.training_settings import MelGanTraining

MEL = MelSettings(sample_rate_hertz=8000, n_fft=256, hop_length=64, win_length=256, n_mels=16)
PUBLISHED = MelGanTraining(
    generator=MelGanSettings(variant="gru", ngf=4, n_residual_layers=1, ratios=(8, 8), mel=MEL),
    discriminator=DiscriminatorSettings(ndf=2, n_layers=2, max_channels=8),
    batch_size=3,
    crop_samples=1536,
)
EVERYTHING = replace(
    PUBLISHED,
    generator=replace(PUBLISHED.generator, excitation=True),
    augmentation=Augmentation(gain_decibels=3.0, polarity=True, speed=0.05),
    steps=6,
    learning_rate=1e-3,
    schedule="cosine",
    learning_rate_floor=0.1,
    max_gradient_norm=1.0,
    mel_weight=1.0,
    stft_weight=1.0,
    adversarial_from_step=4,
    fit_to_data=True,
    average_decay=0.9,
)


def clips(seed: int = 0) -> list[Clip]:
    random = np.random.default_rng(seed)
    return [
        Clip(f"{n}.wav", (0.3 * random.standard_normal(8000)).astype(np.float32).clip(-1, 1))
        for n in range(4)
    ]


def trainer(settings: MelGanTraining, seed: int = 7) -> MelGanTrainer:
    return MelGanTrainer(settings, clips(), device="cpu", seed=seed)


def stored(state: dict[str, Any]) -> Any:
    """What a file of `state` gives back, if it holds nothing but plain values and tensors."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    return torch.load(content, weights_only=True)


def assert_same(one: Any, other: Any) -> None:
    """Fails unless both hold the same values, tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for item, counterpart in zip(one, other, strict=True):
            assert_same(item, counterpart)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("variant", ["original", "gru"])
@pytest.mark.parametrize("settings", [PUBLISHED, EVERYTHING], ids=["published", "everything"])
def test_a_resumed_training_goes_on_bit_for_bit(settings: MelGanTraining, variant: Variant) -> None:
    settings = replace(settings, generator=replace(settings.generator, variant=variant))
    undisturbed, broken_off = trainer(settings), trainer(settings)
    course = [undisturbed.step() for _ in range(6)]
    for _ in range(3):
        broken_off.step()
    resumed = trainer(settings)
    resumed.step()
    resumed.load_state_dict(stored(broken_off.state_dict()))
    assert resumed.steps == 3
    assert [resumed.step() for _ in range(3)] == course[3:]
    assert_same(resumed.state_dict(), undisturbed.state_dict())
    assert resumed.weights() == undisturbed.weights()
    assert resumed.validate() == undisturbed.validate()


def test_the_scale_of_fp16_losses_is_resumed() -> None:
    settings = replace(PUBLISHED, precision=Precision(compute="fp16"))
    first = trainer(settings)
    for _ in range(4):
        first.step()
    scale = first.state_dict()["scaler"]["scale"]
    resumed = trainer(settings)
    resumed.load_state_dict(stored(first.state_dict()))
    assert resumed.state_dict()["scaler"]["scale"] == scale
    assert resumed.step() == first.step()


def test_a_state_of_other_settings_is_refused_by_name() -> None:
    state = trainer(PUBLISHED).state_dict()
    other = replace(PUBLISHED, batch_size=4, generator=replace(PUBLISHED.generator, ngf=8))
    with pytest.raises(SettingsMismatchError) as refusal:
        trainer(other).load_state_dict(state)
    assert "batch_size was 3 and is 4" in refusal.value.message
    assert "generator.ngf was 4 and is 8" in refusal.value.message


def test_a_state_of_another_seed_or_of_other_recordings_is_refused() -> None:
    state = trainer(PUBLISHED).state_dict()
    with pytest.raises(SettingsMismatchError, match="seed was 7 and is 8"):
        trainer(PUBLISHED, seed=8).load_state_dict(state)
    others = MelGanTrainer(PUBLISHED, clips(seed=1), device="cpu", seed=7)
    with pytest.raises(SettingsMismatchError, match="recordings"):
        others.load_state_dict(state)


def test_a_training_can_be_made_longer_unless_its_rate_follows_from_its_length() -> None:
    short = replace(PUBLISHED, steps=3)
    longer = trainer(replace(short, steps=9))
    longer.load_state_dict(trainer(short).state_dict())
    cosine = replace(short, schedule="cosine")
    with pytest.raises(SettingsMismatchError, match="steps was 3 and is 9"):
        trainer(replace(cosine, steps=9)).load_state_dict(trainer(cosine).state_dict())


def test_the_rate_falls_as_scheduled_and_is_what_the_optimizers_use() -> None:
    training = trainer(EVERYTHING)
    rates = [float(training.step()["learning_rate"]) for _ in range(6)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 1e-4
    used = training.state_dict()["generator_optimizer"]["param_groups"][0]["lr"]
    assert used == pytest.approx(rates[-1])


def test_averaged_weights_are_the_model_and_differ_from_the_last_step() -> None:
    averaging = trainer(replace(PUBLISHED, learning_rate=1e-2, average_decay=0.5))
    plain = trainer(replace(PUBLISHED, learning_rate=1e-2))
    for _ in range(3):
        assert averaging.step() == plain.step()
    assert averaging.weights() != plain.weights()
    assert averaging.validate() != plain.validate()
    assert set(averaging.state_dict()) == {*plain.state_dict(), "average"}


def test_gradients_are_clipped_and_their_norms_reported_as_they_were() -> None:
    free, clipped = trainer(PUBLISHED), trainer(replace(PUBLISHED, max_gradient_norm=1e-3))
    norms = [training.step()["gradient_norm/discriminator"] for training in (free, clipped)]
    assert norms[0] == norms[1]
    for network in (clipped.generator, clipped.discriminator):
        left = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None])
        assert float(left.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_settings_are_plain_values_in_a_state() -> None:
    recorded = trainer(EVERYTHING).state_dict()["settings"]
    assert {name: recorded[name] for name in asdict(EVERYTHING)} == asdict(EVERYTHING)
