from dataclasses import replace

import torch

from services.synth.unagan.moments import LAGS, Moments
from tests.unit.synth.unagan.trainers import SMALL, trainer


def wandering(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn((16, 8, 100), generator=random).cumsum(dim=2) / 10


def test_moments_tell_frozen_restless_and_steady_mels_from_others_of_the_corpus() -> None:
    corpus, alike = Moments.of(wandering(0)), Moments.of(wandering(1))
    frozen = wandering(1)[..., :1].expand(-1, -1, 100)
    restless = wandering(1)[..., torch.randperm(100)]
    steady = wandering(1)[:1].expand(16, -1, -1)

    assert corpus.distance(corpus).item() == 0
    for other in (frozen, restless, steady):
        assert Moments.of(other).distance(corpus) > 2 * alike.distance(corpus)


def test_moments_are_means_over_items_and_time() -> None:
    mels = wandering(0)
    moments = Moments.of(mels)
    frames = mels.transpose(0, 1).flatten(1)
    change = (mels[..., LAGS[1] :] - mels[..., : -LAGS[1]]).transpose(0, 1).flatten(1)

    torch.testing.assert_close(moments.mean, frames.mean(dim=1))
    torch.testing.assert_close(moments.covariance, torch.cov(frames, correction=0))
    torch.testing.assert_close(moments.movements[1], change @ change.T / change.shape[1])
    assert len(moments.movements) == 4
    assert len(Moments.of(mels[..., :20]).movements) == 3
    assert len(Moments.of(mels[..., :1]).movements) == 0


def test_a_frozen_mel_and_a_corpus_that_never_moves_have_finite_gradients() -> None:
    still = Moments.of(torch.zeros(2, 8, 100))
    mels = torch.zeros(2, 8, 100, requires_grad=True)

    Moments.of(mels).distance(Moments.of(wandering(0))).backward()
    assert mels.grad is not None
    assert mels.grad.isfinite().all()
    assert Moments.of(wandering(0)).distance(still).isfinite()


def test_a_generator_learns_its_corpus_s_moments() -> None:
    taught = trainer(replace(SMALL, cycle=False, moments_weight=1.0))

    told = [float(taught.step()["moments"]) for _ in range(30)]

    assert told[-1] < 0.8 * told[0]
    assert "moments" not in trainer().step()
