import pytest
import torch

from services.errors import SettingsMismatchError
from services.synth.melgan.discriminator import Discriminator, DiscriminatorSettings
from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    multi_resolution_stft,
)


@pytest.mark.parametrize("ndf", [1, 2, 3, 7, 10, 16])
@pytest.mark.parametrize("max_channels", [5, 64, 1024])
def test_any_width_judges_a_waveform(ndf: int, max_channels: int) -> None:
    settings = DiscriminatorSettings(ndf=ndf, n_layers=2, max_channels=max_channels)
    features = Discriminator(settings)(torch.zeros(2, 1, 2048))
    assert len(features) == settings.scales
    assert all(len(scale) == settings.n_layers + 3 for scale in features)
    assert all(scale[-1].shape[:2] == (2, 1) for scale in features)


def test_the_published_width_has_groups_of_four() -> None:
    shapes = [
        tuple(parameter.shape)
        for name, parameter in Discriminator(DiscriminatorSettings(scales=1)).named_parameters()
        if name.endswith("original1")
    ]
    assert shapes == [
        (16, 1, 15),
        (64, 4, 41),
        (256, 4, 41),
        (1024, 4, 41),
        (1024, 4, 41),
        (1024, 1024, 5),
        (1, 1024, 3),
    ]


def test_each_scale_hears_half_the_rate_of_the_one_before() -> None:
    features = Discriminator(DiscriminatorSettings(ndf=2, max_channels=8))(torch.zeros(1, 1, 4096))
    assert [scale[0].shape[2] for scale in features] == [4096, 2048, 1024]


def test_widths_that_are_not_positive_are_refused() -> None:
    with pytest.raises(SettingsMismatchError, match="ndf"):
        DiscriminatorSettings(ndf=0)


def verdicts(value: float) -> list[list[torch.Tensor]]:
    return [[torch.zeros(1, 2, 8), torch.zeros(1, 2, 4), torch.full((1, 1, 4), value)]] * 3


def test_a_sure_and_right_discriminator_loses_nothing() -> None:
    assert float(hinge_discriminator(verdicts(1.5), verdicts(-1.5))) == 0
    assert float(hinge_discriminator(verdicts(-1.0), verdicts(1.0))) == 12
    assert float(hinge_generator(verdicts(2.0))) == -6


def test_feature_matching_ignores_verdicts_and_teaches_only_the_generated_side() -> None:
    assert float(feature_matching(verdicts(1.0), verdicts(-1.0))) == 0
    real, fake = torch.ones(1, 2, 8, requires_grad=True), torch.zeros(1, 2, 8, requires_grad=True)
    last = torch.zeros(1, 1, 4)
    loss = feature_matching([[real, real, last]], [[fake, fake, last]])
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(8.0)
    assert real.grad is None
    assert fake.grad is not None


def test_stft_distance_is_zero_for_equals_and_finite_for_silence() -> None:
    noise = torch.rand(2, 1, 4096) - 0.5
    silence = torch.zeros(2, 1, 4096, requires_grad=True)
    assert float(multi_resolution_stft(noise, noise)) == 0
    torch.autograd.backward(multi_resolution_stft(torch.zeros(2, 1, 4096), silence))
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()
    assert float(multi_resolution_stft(noise, silence.detach())) > 1
