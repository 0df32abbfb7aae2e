"""MelGAN's training: discriminator and generator in turn (Kumar et al., 2019, arXiv:1910.06711)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from services.learning.adam import adam
from services.learning.averaging import averaged, follow
from services.learning.resumption import refuse_other_settings
from services.learning.schedule import learning_rate
from services.learning.supply import Supply
from services.learning.world import ALONE, World
from services.synth.corpus.clips import Clip, split_clips
from services.synth.mel import MelSpectrogram
from services.synth.melgan.batches import Batch, Batches
from services.synth.melgan.discriminator import Discriminator
from services.synth.melgan.generator import Generator, save_generator
from services.synth.melgan.initialization import fit_to_data
from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_reconstruction,
    multi_resolution_stft,
)
from services.synth.melgan.training_settings import MelGanTraining
from services.synth.melgan.validation import CopySynthesis


class MelGanTrainer:
    """A MelGAN in training on `clips`; the same seed and clips give the same course on a CPU.

    With others in `world`, it learns from its share of each batch. Everything drawn follows from
    seed and step, so a state holds no random numbers. Raises InvalidInputError if there are no
    clips, SettingsMismatchError if a batch does not divide among the world.
    """

    def __init__(
        self,
        settings: MelGanTraining,
        clips: Sequence[Clip],
        *,
        device: torch.device | str,
        seed: int,
        world: World = ALONE,
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.seed = seed
        self.world = world
        self.steps = 0
        self.training_clips, self.validation_clips = split_clips(
            clips, settings.validation_share, seed
        )
        share = world.share(settings.batch_size)
        # Weights are drawn on the CPU, so that they are the same for every device, and without
        # moving the caller's random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(settings.generator).to(self.device)
            self.discriminator = Discriminator(settings.discriminator).to(self.device)
        self.batches = Batches(settings, self.training_clips, self.generator, seed)
        self._supply = Supply(partial(self.batches.batch, items=share), self.device)
        self.mel = MelSpectrogram(settings.generator.mel).to(self.device)
        self._validation = CopySynthesis(
            self.validation_clips, settings.generator, self.mel, settings.validation_seconds
        )
        if settings.fit_to_data:
            # All of the batch on every device, so that all begin alike.
            whole = self.batches.batch(0, range(settings.batch_size))
            real, mel, excitation = self._prepared(whole)
            loudness = float(real.square().mean().sqrt())
            fit_to_data(self.generator, mel, excitation, loudness=loudness)
        self.average = averaged(self.generator) if settings.average_decay else None
        rate, betas = settings.learning_rate, settings.betas
        self._generator_optimizer = adam(self.generator, rate, self.device, betas)
        self._discriminator_optimizer = adam(self.discriminator, rate, self.device, betas)
        self._scaler = settings.precision.scaler(self.device)
        self._generate = settings.precision.compiled(self.generator)
        self._judge = settings.precision.compiled(self.discriminator)

    @property
    def voice(self) -> Generator:
        """What is validated and stored: the averaged generator where there is one."""
        return self.generator if self.average is None else self.average

    @property
    def waited_seconds(self) -> float:
        """How long steps have waited for their crops, in all."""
        return self._supply.waited_seconds

    def step(self) -> dict[str, Tensor]:
        """One update of the discriminator and one of the generator.

        Returns the losses by name, gradient norms and the learning rate as 0-d tensors on the
        device: reading one waits for the device, so read them when you show them.
        """
        settings = self.settings
        batch = self._supply.next(self.steps)
        rate = learning_rate(
            self.steps,
            settings.learning_rate,
            settings.schedule,
            steps=settings.steps,
            floor=settings.learning_rate_floor,
        )
        for optimizer in (self._generator_optimizer, self._discriminator_optimizer):
            optimizer.param_groups[0]["lr"] = rate
        with settings.precision.arithmetic():
            figures = self._update(batch)
        self.steps += 1
        if self.average is not None:
            follow(self.average, self.generator, settings.average_decay, self.steps)
        figures = self.world.average({name: value.detach() for name, value in figures.items()})
        return figures | {"learning_rate": torch.full((), rate, device=self.device)}

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        settings = self.settings
        real, mel, excitation = self._prepared(batch)
        half = settings.precision.autocast(self.device)
        with half:
            fake = self._generate(mel, excitation)
        fake = fake.float()
        figures: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        if self.steps >= settings.adversarial_from_step:
            with half:
                real_features = self._judge(real)
                fake_features = self._judge(fake.detach())
            figures["discriminator"] = hinge_discriminator(real_features, fake_features)
            figures["gradient_norm/discriminator"] = self._descend(
                figures["discriminator"], self.discriminator, self._discriminator_optimizer
            )
            # The verdict on the copy is the generator's business: the discriminator's own
            # gradients of it would be thrown away.
            self.discriminator.requires_grad_(False)
            with half:
                fake_features = self._judge(fake)
            self.discriminator.requires_grad_(True)
            figures["generator"] = hinge_generator(fake_features)
            figures["feature_matching"] = feature_matching(real_features, fake_features)
            total = figures["generator"] + settings.feature_weight * figures["feature_matching"]
        if settings.mel_weight:
            figures["mel_reconstruction"] = mel_reconstruction(mel, self.mel(fake))
            total = total + settings.mel_weight * figures["mel_reconstruction"]
        if settings.stft_weight:
            figures["stft"] = multi_resolution_stft(real, fake)
            total = total + settings.stft_weight * figures["stft"]
        figures["gradient_norm/generator"] = self._descend(
            total, self.generator, self._generator_optimizer
        )
        self._scaler.update()
        return figures

    def _prepared(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Crops, their mels and excitations on the device."""
        real, turns = batch.to(self.device)
        with torch.no_grad():
            mel = self.mel(real)
        return real, mel, self.generator.excite_from(mel, turns)

    def _descend(
        self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Tensor:
        """One step of Adam down `loss`; the norm of its gradients over all devices, unclipped."""
        optimizer.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        self.world.average_gradients(network)
        self._scaler.unscale_(optimizer)
        if self.settings.max_gradient_norm:
            norm = clip_grad_norm_(network.parameters(), self.settings.max_gradient_norm)
        else:
            norm = get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        self._scaler.step(optimizer)
        return norm

    def validate(self) -> dict[str, float]:
        """`mel_error`: mean absolute log10-mel difference of the copies of clips kept back.

        Each process computes all of it, so that the first alone may be asked.
        """
        return {"mel_error": self._validation.mel_error(self.voice)}

    def examples(self) -> dict[str, tuple[NDArray[np.float32], int]]:
        """Sound kept back, and its copies: mono samples and their rate."""
        return self._validation.examples(self.voice)

    def weights(self) -> bytes:
        """The generator as safetensors, for `load_generator`; the averaged one if there is one."""
        return save_generator(self.voice)

    def config(self) -> dict[str, Any]:
        """What `load_generator` needs, and where the model comes from, as JSON-able values."""
        training = asdict(self.settings)
        del training["generator"]
        return {
            "family": "melgan",
            **self.settings.generator.to_config(),
            "statistics": self._statistics,
            "training": {
                **training,
                "planned_steps": self.settings.steps,
                "seed": self.seed,
                "steps": self.steps,
                "devices": self.world.size,
                "validation_files": sorted({clip.name for clip in self.validation_clips}),
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if undisturbed; the tensors are living."""
        return {
            "settings": self._recorded,
            "steps": self.steps,
            "scaler": self._scaler.state_dict(),
            **{name: part.state_dict() for name, part in self._parts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, wherever this training stands.

        Raises SettingsMismatchError naming what was set otherwise. `steps` may differ where the
        learning rate does not follow from it, so that a training can be made longer.
        """
        besides = ["steps"] if self.settings.schedule == "constant" else []
        refuse_other_settings("MelGAN", state["settings"], self._recorded, besides=besides)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self.close()

    def close(self) -> None:
        """Ends the thread that readies crops; another `step` starts it again."""
        self._supply.close()

    @property
    def _recorded(self) -> dict[str, Any]:
        """All that decides the course of a training, but its devices."""
        identities = "".join(clip.identity for clip in self.training_clips)
        recordings = hashlib.sha256(identities.encode()).hexdigest()
        return {"seed": self.seed, "recordings": recordings, **asdict(self.settings)}

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self._generator_optimizer,
            "discriminator_optimizer": self._discriminator_optimizer,
        }
        return parts if self.average is None else parts | {"average": self.average}

    @property
    def _statistics(self) -> dict[str, float]:
        clips = [*self.training_clips, *self.validation_clips]
        rate = self.settings.generator.mel.sample_rate_hertz
        return {
            "files": len({clip.name for clip in clips}),
            "seconds": sum(clip.samples.size for clip in clips) / rate,
            "peak": max(clip.peak for clip in clips),
        }
