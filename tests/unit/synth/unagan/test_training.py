import json
import threading
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from services.errors import InvalidInputError, SettingsMismatchError
from services.learning.precision import Compute, Precision
from services.synth.corpus.augmentation import Augmentation
from services.synth.corpus.clips import Clip
from services.synth.unagan.generator import load_generator
from services.synth.unagan.training import UnaganTrainer
from services.synth.unagan.training_settings import (
    CYCLE_FIGURES,
    UnaganTraining,
    ValidationFigure,
)
from tests.unit.synth.unagan.trainers import FORMS, SMALL, clip, trainer


def as_floats(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(loss.ndim == 0 for loss in losses.values())
    return {name: float(loss) for name, loss in losses.items()}


@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_every_form_trains_validates_and_sings(settings: UnaganTraining) -> None:
    training = trainer(settings)
    before = training.weights()

    losses = as_floats(training.step())
    figures = training.validate()

    networks = ["generator", "discriminator"] + ["encoder"] * settings.cycle
    assert {"generator", "discriminator", "real", "generated", "convergence", "k"} <= set(losses)
    assert {f"gradient_norm/{name}" for name in networks} <= set(losses)
    assert losses["learning_rate"] == pytest.approx(settings.learning_rate)
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


def test_the_config_tells_settings_and_what_was_kept_back() -> None:
    training = trainer(replace(SMALL, steps=10), count=4, seed=3)
    training.step()

    config = json.loads(json.dumps(training.config()))

    told = config["training"]
    assert (told["steps"], told["planned_steps"], told["seed"]) == (1, 10, 3)
    assert told["gamma"] == SMALL.gamma
    assert told["precision"]["compute"] == "float32"
    assert len(told["validation_files"]) == 1
    assert told["validation_files"][0] in {f"{number}.wav" for number in range(4)}


def test_an_average_of_the_weights_is_judged_and_stored_if_wanted() -> None:
    plain, averaging = trainer(), trainer(replace(SMALL, average_decay=0.9))
    before = averaging.weights()
    for run in (plain, averaging):
        for _ in range(3):
            run.step()

    assert torch.equal(
        parameters_to_vector(plain.generator.parameters()),
        parameters_to_vector(averaging.generator.parameters()),
    )
    assert averaging.weights() not in (before, plain.weights())
    assert averaging.validate()["mel_distance"] != plain.validate()["mel_distance"]


def test_a_cosine_lets_the_learning_rate_fall_to_its_floor() -> None:
    settings = replace(SMALL, schedule="cosine", steps=2, learning_rate_floor=0.1)
    training = trainer(settings)

    rates = [float(training.step()["learning_rate"]) for _ in range(3)]

    assert rates == pytest.approx([1e-3, 0.55e-3, 1e-4])


def test_gradients_are_clipped_after_their_norm_is_told() -> None:
    training = trainer(replace(SMALL, max_gradient_norm=1e-3))

    told = training.step()

    for name, network in (("generator", training.generator), ("encoder", training.encoder)):
        assert network is not None
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        clipped = torch.nn.utils.get_total_norm(gradients)
        assert told[f"gradient_norm/{name}"] > 1e-3
        assert clipped.item() == pytest.approx(1e-3, rel=0.01)


def test_augmented_crops_train_and_are_judged_by_plain_ones() -> None:
    plain, augmented = trainer(), trainer(replace(SMALL, augmentation=Augmentation(speed=0.1)))

    assert augmented.validate() == plain.validate()
    assert as_floats(augmented.step()) != as_floats(plain.step())


def test_held_out_and_generated_sound_is_to_be_heard_and_disturbs_nothing() -> None:
    heard, deaf = trainer(), trainer()
    heard.step()
    deaf.step()

    examples = heard.examples()

    recording = f"recording/{heard.config()['training']['validation_files'][0]}"
    assert list(examples) == [recording, "generated/0", "generated/1"]
    for samples, rate in examples.values():
        assert rate == 44_100
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert 0.4 * rate < samples.size <= 3 * rate
        assert np.isfinite(samples).all()
        assert 0.01 < np.abs(samples).max() <= 1
    assert np.abs(examples[recording][0]).max() == 1
    assert not np.array_equal(examples["generated/0"][0], examples["generated/1"][0])
    again = heard.examples()
    assert all(np.array_equal(again[name][0], examples[name][0]) for name in examples)
    assert as_floats(heard.step()) == as_floats(deaf.step())


def test_a_generator_that_has_come_apart_can_still_be_listened_to() -> None:
    training = trainer()
    with torch.no_grad():
        next(training.generator.parameters()).fill_(float("nan"))

    assert all(np.isfinite(samples).all() for samples, _ in training.examples().values())


def test_what_the_generator_pays_leaves_no_gradients_in_the_discriminator() -> None:
    training = trainer()
    reached: list[torch.Tensor] = []
    parameters = list(training.discriminator.parameters())
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(reached.append)

    training.step()

    assert len(reached) == len(parameters)


def test_waiting_is_counted_over_a_pause_that_leaves_no_thread() -> None:
    undisturbed = trainer()
    undisturbed.step()
    expected = as_floats(undisturbed.step())
    undisturbed.close()
    before = set(threading.enumerate())
    training = trainer()
    training.step()
    waited = training.waited_seconds
    assert waited > 0

    training.close()

    assert not set(threading.enumerate()) - before
    assert training.waited_seconds == waited
    assert as_floats(training.step()) == expected
    assert training.waited_seconds > waited


def test_validation_hears_no_more_than_it_is_told() -> None:
    crop_seconds = SMALL.segment_frames * 256 / 44_100
    whole, two = trainer(), trainer(replace(SMALL, validation_seconds=2.5 * crop_seconds))
    assert SMALL.validation_crops > 1000
    assert two.settings.validation_crops == 2
    assert replace(SMALL, validation_seconds=0.01).validation_crops == 1
    heard: list[int] = []
    two.discriminator.register_forward_hook(lambda _, mels, __: heard.append(len(mels[0])))

    figures = two.validate()

    assert heard == [2, 2, 2]
    assert figures != whole.validate()


@pytest.mark.parametrize(
    "change",
    [
        {"validation_figure": "frechet_distance"},
        {"schedule": "steps"},
        {"batch_size": 0},
        {"validation_seconds": 0.0},
        {"learning_rate": float("nan")},
        {"moments_weight": -1.0},
        {"average_decay": 1.0},
        {"init_k": 1.5},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_by_its_name(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(InvalidInputError, match=name) as refused:
        replace(SMALL, **change)
    assert str(value) in refused.value.message
    assert refused.value.culprit == name
    assert not isinstance(refused.value, SettingsMismatchError)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"schedule": "cosine"}, "steps"),
        ({"networks": replace(SMALL.networks, variant="nonhierarchical")}, "cycle"),
        ({"cycle": False, "validation_figure": "noise_cycle"}, "validation_figure"),
    ],
    ids=str,
)
def test_values_that_cannot_work_together_are_refused(change: dict[str, Any], culprit: str) -> None:
    with pytest.raises(SettingsMismatchError) as refused:
        replace(SMALL, **change)
    assert refused.value.culprit == culprit


def test_every_figure_that_can_be_chosen_is_given() -> None:
    figures = set(get_args(ValidationFigure))

    assert set(trainer().validate()) == figures
    assert set(trainer(FORMS["without"]).validate()) == figures - set(CYCLE_FIGURES)
    with pytest.raises(InvalidInputError, match="convergence, mel_distance"):
        replace(SMALL, validation_figure="frechet_distance")


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_halves_train_like_float32_but_for_their_rounding(compute: Compute) -> None:
    exact, rounded = trainer(), trainer(replace(SMALL, precision=Precision(compute=compute)))

    for _ in range(2):
        expected, losses = as_floats(exact.step()), as_floats(rounded.step())

    for name in ("generator", "real", "generated", "mel_cycle", "noise_cycle"):
        assert losses[name] == pytest.approx(expected[name], rel=0.05)
    assert np.isfinite(list(rounded.validate().values())).all()
    assert next(rounded.generator.parameters()).dtype == torch.float32
