import pytest
import torch
from torch import nn

from services.errors import CancelledError
from services.synth.interruption import BLOCK_STEPS, BidirectionalGRU, interruptible
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator, MelGanSettings, vocode
from services.synth.unagan.generator import UnaganSettings, build_generator


@pytest.mark.parametrize(
    ("width", "batch", "steps"),
    [
        (8, 1, 1),
        (8, 1, 2 * BLOCK_STEPS - 1),
        (8, 1, 2 * BLOCK_STEPS),
        (8, 3, 2 * BLOCK_STEPS + 1),
        (20, 1, 5 * BLOCK_STEPS - 1),
        (64, 1, 3 * BLOCK_STEPS + 1),
        (512, 1, 2 * BLOCK_STEPS + 17),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_recurrence_in_blocks_answers_as_in_one_pass_bit_for_bit(
    width: int, batch: int, steps: int, given: bool
) -> None:
    torch.manual_seed(steps)
    whole = nn.GRU(width, width, batch_first=True, bidirectional=True).requires_grad_(False)
    blocks = BidirectionalGRU(width, width).requires_grad_(False)
    blocks.load_state_dict(whole.state_dict())
    sound = torch.randn(batch, steps, width)
    state = torch.randn(2, batch, width) if given else None

    with torch.inference_mode():
        for ours, theirs in zip(blocks(sound, state), whole(sound, state), strict=True):
            assert torch.equal(ours, theirs)


def test_gradients_flow_through_a_long_recurrence() -> None:
    gru = BidirectionalGRU(2, 2)
    gru(torch.randn(1, 2 * BLOCK_STEPS, 2))[0].sum().backward()
    assert all(weight.grad is not None for weight in gru.parameters())


class Caller:
    """Goes away at the checkpoint of that number."""

    def __init__(self, leaves_at: int = 2**31) -> None:
        self.leaves_at = leaves_at
        self.checkpoints = 0

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.checkpoints == self.leaves_at:
            raise CancelledError("the caller has gone")


def test_a_pass_can_be_stopped_before_every_module_and_within_a_recurrence() -> None:
    mel = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=4)
    vocoder = Generator(MelGanSettings(variant="gru", ngf=1, ratios=(8, 8), mel=mel)).eval()
    frames = torch.randn(1, 4, 4 * BLOCK_STEPS)
    expected = vocode(vocoder, frames)

    patient = Caller()
    with interruptible(vocoder, patient.checkpoint):
        assert torch.equal(vocode(vocoder, frames), expected)
    # Each module once or more, and four blocks in either direction.
    assert patient.checkpoints > 30

    for leaves_at in range(1, patient.checkpoints + 1, 6):
        caller = Caller(leaves_at)
        with pytest.raises(CancelledError), interruptible(vocoder, caller.checkpoint):
            vocode(vocoder, frames)
        assert caller.checkpoints == leaves_at

    # Whoever comes next is not asked for the one who left.
    assert torch.equal(vocode(vocoder, frames), expected)
    assert caller.checkpoints == leaves_at


@pytest.mark.parametrize("variant", ["hierarchical", "nonhierarchical"])
def test_unagan_asks_in_every_block(variant: str) -> None:
    mel = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=4)
    settings = UnaganSettings(
        variant=variant, z_dim=2, z_scale_factors=(2, 2), middle_dim=4, num_groups=2, mel=mel
    )
    generator = build_generator(settings).eval().requires_grad_(False)
    noise = generator.draw(2 * BLOCK_STEPS, [1])
    patient = Caller()

    with torch.inference_mode(), interruptible(generator, patient.checkpoint):
        generator(noise.z, noise.states)

    recurrences = sum(isinstance(module, BidirectionalGRU) for module in generator.modules())
    assert recurrences == generator.recurrent_blocks
    assert patient.checkpoints > 3 * recurrences
