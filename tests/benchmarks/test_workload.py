import pytest
import torch
from torch import nn

from services.synth.melgan.generator import Generator, MelGanSettings
from tests.benchmarks.workload import multiplications_per_frame, multiplications_per_second


@pytest.mark.parametrize("variant", ["original", "gru"])
@pytest.mark.parametrize("excitation", [False, True])
def test_the_count_is_what_the_layers_compute(variant: str, excitation: bool) -> None:
    settings = MelGanSettings(variant=variant, ngf=2, excitation=excitation)  # type: ignore[arg-type]
    network = Generator(settings).remove_weight_norm().eval()
    frames, counted = 16, 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv1d):
            counted += answer.shape[2] * module.weight.numel()
        elif isinstance(module, nn.ConvTranspose1d):
            counted += given[0].shape[2] * module.weight.numel()
        elif isinstance(module, nn.GRU):
            matrices = (weight for weight in module.parameters() if weight.ndim == 2)
            counted += given[0].shape[1] * sum(weight.numel() for weight in matrices)

    for module in network.modules():
        module.register_forward_hook(count)
    mel = torch.zeros(1, 80, frames)
    with torch.inference_mode():
        network(mel, network.excite(mel, [0]))

    assert counted == frames * multiplications_per_frame(settings)


def test_the_published_generator_multiplies_8_3_billion_times_a_second() -> None:
    assert round(multiplications_per_second(MelGanSettings()) / 1e9, 1) == 8.3
