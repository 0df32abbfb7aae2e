import pytest
import torch

from services.errors import CancelledError
from services.synth.generation.singing import BLOCK_STEPS, sing
from services.synth.mel import MelSettings
from services.synth.unagan.generator import Unagan, UnaganSettings, build_generator

MEL = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=5)


def unagan(variant: str, factors: tuple[int, ...] = (2, 3), width: int = 8) -> Unagan:
    settings = UnaganSettings(
        variant=variant,  # type: ignore[arg-type]
        z_dim=3,
        z_scale_factors=factors,
        middle_dim=width,
        num_groups=2,
        mel=MEL,
    )
    torch.manual_seed(0)
    generator = build_generator(settings).eval().requires_grad_(False)
    for name, weight in generator.named_parameters():
        if "norm" in name:
            weight.normal_()
    return Unagan(settings, generator, torch.linspace(-3, 0, 5), torch.linspace(0.5, 2, 5))


@pytest.mark.parametrize("variant", ["hierarchical", "nonhierarchical"])
@pytest.mark.parametrize("frames", [1, 100, BLOCK_STEPS + 1, 2 * BLOCK_STEPS + 17])
@pytest.mark.parametrize("seeds", [[4], [4, 2**64 - 1, 6]])
def test_it_sings_what_the_network_sings_in_one_pass(
    variant: str, frames: int, seeds: list[int]
) -> None:
    model = unagan(variant)

    mel = sing(model, frames, seeds)

    assert mel.shape == (len(seeds), 5, frames)
    torch.testing.assert_close(mel, model.sing(frames, seeds), atol=1e-5, rtol=1e-5)


def test_company_changes_nothing_but_last_bits() -> None:
    model = unagan("hierarchical", width=64)
    together = sing(model, 500, [1, 2, 3])
    for seed, mel in zip([1, 2, 3], together, strict=True):
        torch.testing.assert_close(sing(model, 500, [seed])[0], mel, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["hierarchical", "nonhierarchical"])
def test_it_asks_in_every_layer_and_stops_where_it_is_told(variant: str) -> None:
    model, asked, leaves_at = unagan(variant), 0, 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == leaves_at:
            raise CancelledError("the caller has gone")

    sing(model, 2 * BLOCK_STEPS, [1], checkpoint)
    assert asked > 15
    for leaves_at in range(1, asked + 1, 5):
        asked = 0
        with pytest.raises(CancelledError):
            sing(model, 2 * BLOCK_STEPS, [1], checkpoint)
        assert asked == leaves_at
