import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from services.errors import SettingsMismatchError
from services.learning.precision import Precision
from services.synth.unagan.training import UnaganTrainer
from services.synth.unagan.training_settings import UnaganTraining
from tests.unit.synth.unagan.trainers import FORMS, SMALL, trainer

# Large enough for k to leave its first value and to move at every step.
WHOLE = {
    **{name: replace(form, lambda_k=5.0, init_k=0.5) for name, form in FORMS.items()},
    "averaged, cosine, moments": replace(
        SMALL, average_decay=0.5, schedule="cosine", steps=6, moments_weight=1.0
    ),
    "fp16": replace(SMALL, precision=Precision(compute="fp16")),
}


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint on the disk gives back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def tensors(state: Any, place: str = "") -> dict[str, Any]:
    """All leaves of a state by where they stand."""
    if isinstance(state, dict):
        state = {str(key): value for key, value in state.items()}
        pairs = state.items()
    elif isinstance(state, (list, tuple)):
        pairs = enumerate(state)
    else:
        return {place: state}
    leaves = {}
    for key, value in pairs:
        leaves |= tensors(value, f"{place}/{key}")
    return leaves


def assert_same(first: UnaganTrainer, second: UnaganTrainer) -> None:
    ours, theirs = tensors(first.state_dict()), tensors(second.state_dict())
    assert ours.keys() == theirs.keys()
    for place, value in ours.items():
        same = (
            torch.equal(value, theirs[place]) if torch.is_tensor(value) else value == theirs[place]
        )
        assert same, place


@pytest.mark.parametrize("settings", WHOLE.values(), ids=WHOLE)
def test_a_resumed_training_equals_an_undisturbed_one_bit_for_bit(settings: UnaganTraining) -> None:
    undisturbed, interrupted = trainer(settings), trainer(settings)
    for _ in range(2):
        undisturbed.step()
        interrupted.step()
    interrupted.validate()
    state = stored(interrupted.state_dict())
    # What the lost training did after its last checkpoint leaves no trace.
    interrupted.step()

    resumed = trainer(settings)
    resumed.step()
    resumed.load_state_dict(state)
    for _ in range(2):
        expected, losses = undisturbed.step(), resumed.step()

    assert resumed.steps == undisturbed.steps == 4
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], expected[name]) for name in losses)
    assert_same(resumed, undisturbed)
    assert resumed.weights() == undisturbed.weights()
    assert resumed.validate() == undisturbed.validate()


def test_a_state_holds_k_and_the_buffers_of_batch_norm_and_spectral_norm() -> None:
    training = trainer(WHOLE["with cycles"])
    fresh = tensors(stored(training.state_dict()))
    training.step()
    moved = {
        place
        for place, value in tensors(stored(training.state_dict())).items()
        if torch.is_tensor(value) and not (place in fresh and torch.equal(value, fresh[place]))
    }

    assert "/k" in moved
    for critic in ("discriminator", "encoder"):
        for buffer in ("running_mean", "running_var", "0._u", "0._v"):
            assert any(
                place.startswith(f"/networks/{critic}") and buffer in place for place in moved
            )


@pytest.mark.parametrize(
    ("other", "culprit"),
    [
        (replace(SMALL, gamma=0.5), "gamma"),
        (replace(SMALL, cycle=False), "cycle"),
        (replace(SMALL, networks=replace(SMALL.networks, middle_dim=4)), "networks.middle_dim"),
        (replace(SMALL, average_decay=0.9), "average_decay"),
    ],
)
def test_the_state_of_other_settings_is_refused_by_naming_them(
    other: UnaganTraining, culprit: str
) -> None:
    state = stored(trainer(other).state_dict())

    with pytest.raises(SettingsMismatchError, match=culprit):
        trainer().load_state_dict(state)
    with pytest.raises(SettingsMismatchError, match="seed"):
        trainer(seed=1).load_state_dict(stored(trainer().state_dict()))


def test_a_training_at_a_constant_rate_can_be_prolonged() -> None:
    ended = trainer(replace(SMALL, steps=1))
    ended.step()

    prolonged = trainer(replace(SMALL, steps=2))
    prolonged.load_state_dict(stored(ended.state_dict()))
    prolonged.step()

    assert prolonged.steps == 2


def test_a_training_of_an_earlier_version_goes_on_with_the_default_of_a_new_setting() -> None:
    state = stored(trainer().state_dict())
    del state["settings"]["validation_seconds"]

    trainer().load_state_dict(state)

    with pytest.raises(SettingsMismatchError, match=r"validation_seconds was 300\.0 and is 1\.0"):
        trainer(replace(SMALL, validation_seconds=1.0)).load_state_dict(state)
