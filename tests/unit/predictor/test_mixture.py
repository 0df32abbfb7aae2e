"""The density over the next frame is one, and what is drawn follows it."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from services.predictor.networks.mixture import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    Mixture,
    parameter_count,
)

FEATURES, MIXTURES, DRAWS = 3, 4, 40_000


def told(batch: int = 5, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    count = parameter_count(FEATURES, MIXTURES)
    centre = torch.randn(batch, FEATURES, generator=generator, dtype=torch.float64)
    parameters = torch.randn(batch, count, generator=generator, dtype=torch.float64)
    return centre, spread * parameters


def mixture(batch: int = 5, spread: float = 1.0) -> Mixture:
    centre, parameters = told(batch, spread)
    return Mixture.told(centre, parameters, MIXTURES)


def reference(model: Mixture) -> MixtureSameFamily:
    """The same by torch.distributions, with the covariances written out."""
    back = torch.linalg.inv(model.coupling).unsqueeze(-3)
    means = model.centre.unsqueeze(-2) + (back @ model.means.unsqueeze(-1)).squeeze(-1)
    scales = (back @ torch.diag_embed(model.scales)).tril()
    components = MultivariateNormal(means, scale_tril=scales)
    return MixtureSameFamily(Categorical(logits=model.log_weights), components)


def drawn(model: Mixture, temperature: float) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    uniform = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    normal = torch.randn(DRAWS, FEATURES, generator=generator, dtype=torch.float64)
    centre, parameters = (each.expand(DRAWS, -1) for each in told(1))
    return Mixture.told(centre, parameters, MIXTURES).drawn(uniform, normal, temperature)


def test_the_density_is_that_of_gaussians_with_full_covariances() -> None:
    frames = mixture().centre + 0.3
    torch.testing.assert_close(mixture().log_density(frames), reference(mixture()).log_prob(frames))  # type: ignore[no-untyped-call]


def test_the_mean_is_that_of_the_density() -> None:
    torch.testing.assert_close(mixture().mean(), reference(mixture()).mean)


def test_draws_at_temperature_1_follow_the_density() -> None:
    torch.manual_seed(0)
    frames = drawn(mixture(1), 1.0)
    wanted = reference(mixture(1))
    error = 5 * wanted.variance[0].sqrt() / math.sqrt(DRAWS)
    assert ((frames.mean(dim=0) - wanted.mean[0]).abs() < error).all()
    torch.testing.assert_close(frames.var(dim=0), wanted.variance[0], rtol=0.05, atol=0)
    entropy = -wanted.log_prob(wanted.sample((DRAWS,))).mean()  # type: ignore[no-untyped-call]
    assert -wanted.log_prob(frames.unsqueeze(1)).mean() == pytest.approx(float(entropy), abs=0.03)  # type: ignore[no-untyped-call]


def test_a_lower_temperature_draws_closer_to_what_is_likely() -> None:
    spreads = [float(drawn(mixture(1), each).std(dim=0).mean()) for each in (0.25, 0.5, 1.0)]
    assert spreads == sorted(spreads)


def test_temperature_0_is_the_mean_of_the_most_probable_component() -> None:
    model = mixture()
    first, second = (
        model.drawn(torch.full((5,), number), torch.full((5, FEATURES), 3.0), 0.0)
        for number in (0.01, 0.99)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    means = reference(model).component_distribution.mean
    torch.testing.assert_close(first, means[torch.arange(5), model.log_weights.argmax(dim=-1)])


def test_the_smallest_temperature_draws_the_likeliest_component() -> None:
    centre, parameters = (each.float() for each in told())
    model = Mixture.told(centre, parameters, MIXTURES)
    assert model.log_weights.argmax(dim=-1).any()
    uniform, normal = torch.full((5,), 0.5), torch.ones(5, FEATURES)
    coldest = model.drawn(uniform, normal, 1e-39)
    torch.testing.assert_close(coldest, model.drawn(uniform, normal, 0.0), rtol=0, atol=0)


def test_the_largest_number_below_1_draws_the_last_component() -> None:
    centre, parameters = (each.float() for each in told())
    model = Mixture.told(centre, parameters, MIXTURES)
    highest = torch.full((5,), 1 - 2**-24)
    assert model.drawn(highest, torch.zeros(5, FEATURES), 1.0).isfinite().all()


@pytest.mark.parametrize("spread", [0.0, 30.0])
def test_scales_stay_within_their_bounds_and_densities_finite(spread: float) -> None:
    model = mixture(spread=spread)
    assert (model.scales >= SMALLEST_SCALE).all()
    assert (model.scales <= LARGEST_SCALE).all()
    assert model.log_density(model.centre).isfinite().all()


def test_densities_are_computed_in_float32_under_autocast() -> None:
    centre, parameters = (each.float() for each in told())
    plain = Mixture.told(centre, parameters, MIXTURES).log_density(centre)
    with torch.autocast("cpu", torch.bfloat16):
        model = Mixture.told(centre, parameters, MIXTURES)
        torch.testing.assert_close(model.log_density(centre), plain, rtol=0, atol=0)
