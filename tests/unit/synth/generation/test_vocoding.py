from collections.abc import Callable
from typing import Any

import pytest
import torch

from services.errors import CancelledError, InvalidInputError
from services.synth.generation import vocoding
from services.synth.generation.vocoding import CPU_CHUNK_FRAMES, Vocoder
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator, MelGanSettings

MEL = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=6)


def generator(ratios: tuple[int, ...] = (8, 8), **settings: Any) -> Generator:
    hop = 1
    for ratio in ratios:
        hop *= ratio
    mel = MelSettings(
        sample_rate_hertz=16_000, n_fft=hop * 4, hop_length=hop, win_length=hop * 4, n_mels=6
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Generator(MelGanSettings(ngf=2, ratios=ratios, mel=mel, **settings))
    return made.eval().requires_grad_(False)


def whole(vocoder: Vocoder, mel: torch.Tensor, seeds: list[int] | None = None) -> torch.Tensor:
    return torch.cat(list(vocoder.chunks(mel, seeds)), dim=1)


@pytest.mark.parametrize("variant", ["original", "gru"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ratios": (8, 8, 2, 2)},
        {"ratios": (3, 5, 2), "n_residual_layers": 2},
        {"ratios": (2, 2), "n_residual_layers": 5},
        {"ratios": (4, 16), "n_residual_layers": 0},
        {"excitation": True},
        {"excitation": True, "ratios": (3, 4, 2)},
    ],
)
@pytest.mark.parametrize("frames", ["shortest", 63, 64, 65, 127, 129, 201])
@pytest.mark.parametrize("batch", [1, 2])
def test_chunks_joined_are_the_answer_in_one_pass(
    variant: str, settings: dict[str, Any], frames: str | int, batch: int
) -> None:
    network = generator(variant=variant, **settings)
    count = network.settings.shortest_frames if frames == "shortest" else int(frames)
    torch.manual_seed(count)
    mel = torch.randn(batch, 6, count) - 2
    seeds = [5, 6][:batch]
    expected = network(mel, network.excite(mel, seeds))[:, 0]

    answer = whole(Vocoder(network), mel, seeds)

    assert answer.shape == expected.shape
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["original", "gru"])
def test_weight_norm_may_be_folded_or_not(variant: str) -> None:
    network = generator(variant=variant)
    mel = torch.randn(1, 6, 100)
    answer = whole(Vocoder(network), mel)

    torch.testing.assert_close(whole(Vocoder(network.remove_weight_norm()), mel), answer)


@pytest.mark.parametrize("variant", ["original", "gru"])
def test_the_bytes_do_not_depend_on_the_threads(variant: str) -> None:
    vocoder = Vocoder(generator(variant=variant))
    mel = torch.randn(1, 6, 10 * CPU_CHUNK_FRAMES)
    usual = torch.get_num_threads()
    alone = whole(vocoder, mel)
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole(vocoder, mel), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_bfloat16_stays_close() -> None:
    network = generator(variant="gru", ratios=(8, 8, 2, 2))
    mel = torch.randn(1, 6, 150)

    close = whole(Vocoder(network, dtype=torch.bfloat16), mel)

    exact = whole(Vocoder(network), mel)
    assert close.dtype == torch.float32
    assert not torch.equal(close, exact)
    assert (close - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("variant", ["original", "gru"])
def test_it_asks_before_every_chunk_and_stops_where_it_is_told(variant: str) -> None:
    vocoder = Vocoder(generator(variant=variant))
    mel = torch.randn(1, 6, 5 * CPU_CHUNK_FRAMES)
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == leaves_at:
            raise CancelledError("the caller has gone")

    leaves_at = 0
    assert len(list(vocoder.chunks(mel, checkpoint=checkpoint))) == 5
    all_questions = asked
    assert all_questions >= 6
    for leaves_at in range(1, all_questions + 1):
        asked = 0
        with pytest.raises(CancelledError):
            list(vocoder.chunks(mel, checkpoint=checkpoint))
        assert asked == leaves_at


@pytest.mark.parametrize("shape", [(1, 5, 100), (6, 100), (1, 6, 2)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="MelGAN"):
        whole(Vocoder(generator()), torch.randn(shape))


class Replayed:
    """Stands for CapturedChunk where there is no GPU: what it was given first is run each time."""

    made = 0

    def __init__(self, compute: Callable[..., torch.Tensor], *examples: torch.Tensor) -> None:
        Replayed.made += 1
        self._compute = compute
        self._shapes = [example.shape for example in examples]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        assert [given.shape for given in inputs] == self._shapes
        return self._compute(*inputs).clone()


@pytest.mark.parametrize("variant", ["original", "gru"])
@pytest.mark.parametrize("excitation", [False, True])
def test_what_one_chunk_recorded_answers_all_chunks_of_its_shape(
    variant: str, excitation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocoding, "CapturedChunk", Replayed)
    Replayed.made = 0
    network = generator(variant=variant, ratios=(8, 8, 2, 2), excitation=excitation)
    torch.manual_seed(0)
    mel = torch.randn(2, 6, 6 * CPU_CHUNK_FRAMES + 30) - 2

    answer = whole(Vocoder(network, graphs=True), mel, [1, 2])

    assert torch.equal(answer, whole(Vocoder(network), mel, [1, 2]))
    assert Replayed.made == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine offers no CUDA device")
@pytest.mark.parametrize("graphs", [False, True])
def test_a_gpu_answers_as_the_cpu_does(graphs: bool) -> None:
    network = generator(variant="gru", ratios=(8, 8, 2, 2), excitation=True)
    mel = torch.randn(2, 6, 5000) - 2
    expected = whole(Vocoder(network), mel, [1, 2])

    answer = whole(Vocoder(network.cuda(), graphs=graphs), mel.cuda(), [1, 2])

    torch.testing.assert_close(answer.cpu(), expected, atol=1e-4, rtol=0)
