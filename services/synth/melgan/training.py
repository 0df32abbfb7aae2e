"""MelGAN's training: discriminator and generator in turn (Kumar et al., 2019, arXiv:1910.06711)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm

from services.synth.clips import Clip, split_clips
from services.synth.feeding import Feed
from services.synth.mel import MelSpectrogram
from services.synth.melgan.discriminator import Discriminator
from services.synth.melgan.generator import Generator, save_generator, vocode
from services.synth.melgan.initialization import fit_to_data
from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_reconstruction,
    multi_resolution_stft,
)
from services.synth.melgan.training_settings import MelGanTraining
from services.synth.training.averaging import averaged, follow
from services.synth.training.resumption import refuse_other_settings
from services.synth.training.schedule import learning_rate
from services.synth.training.world import ALONE, World

VALIDATION_PIECE_SECONDS = 4.0
"""What is vocoded at once, so that a validation needs no more memory for longer clips."""
EXAMPLES = 2
EXAMPLE_SECONDS = 5.0


class Batch(NamedTuple):
    """What one step hears: crops (B, 1, samples) and noise (B, noise_channels, frames)."""

    real: Tensor
    noise: Tensor


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
        self._share = world.share(settings.batch_size)
        # Weights are drawn on the CPU, so that they are the same for every device, and without
        # moving the caller's random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(settings.generator).to(self.device)
            self.discriminator = Discriminator(settings.discriminator).to(self.device)
        self.mel = MelSpectrogram(settings.generator.mel).to(self.device)
        if settings.fit_to_data:
            # All of the batch on every device, so that all begin alike.
            first = self.crops(0).to(self.device)
            mel = self.mel(first)
            noise = self._noise(0, range(settings.batch_size)).to(self.device)
            fit_to_data(self.generator, mel, noise, loudness=float(first.square().mean().sqrt()))
        self.average = averaged(self.generator) if settings.average_decay else None
        self._generator_optimizer = self._adam(self.generator)
        self._discriminator_optimizer = self._adam(self.discriminator)
        self._scaler = settings.precision.scaler(self.device)
        self._generate = settings.precision.compiled(self.generator)
        self._judge = settings.precision.compiled(self.discriminator)
        self._feed: Feed[Batch] | None = None
        self._waited_before = 0.0

    @property
    def voice(self) -> Generator:
        """What is validated and stored: the averaged generator where there is one."""
        return self.average or self.generator

    @property
    def waited_seconds(self) -> float:
        """How long steps have waited for their crops, in all."""
        return self._waited_before + (self._feed.waited_seconds if self._feed else 0.0)

    def step(self) -> dict[str, Tensor]:
        """One update of the discriminator and one of the generator.

        Returns the losses by name, gradient norms and the learning rate as 0-d tensors on the
        device: reading one waits for the device, so read them when you show them.
        """
        settings = self.settings
        if self._feed is None:
            self._feed = Feed(self._batch, self.steps)
        real, noise = (part.to(self.device, non_blocking=True) for part in self._feed.next())
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
            figures = self._update(real, noise)
        self.steps += 1
        if self.average is not None:
            follow(self.average, self.generator, settings.average_decay, self.steps)
        figures = self.world.average({name: value.detach() for name, value in figures.items()})
        return figures | {"learning_rate": torch.full((), rate, device=self.device)}

    def _update(self, real: Tensor, noise: Tensor) -> dict[str, Tensor]:
        settings = self.settings
        half = settings.precision.autocast(self.device)
        with torch.no_grad():
            mel = self.mel(real)
        with half:
            fake = self._generate(mel, noise)
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

    def crops(self, step: int, items: Sequence[int] | None = None) -> Tensor:
        """The crops of one step: (batch_size, 1, crop_samples) float32 on the CPU, or some of them.

        Each follows from seed, step and its place in the batch alone, so no two steps and no two
        epochs repeat each other, a resumed training goes on as if undisturbed, and several devices
        crop what one would. Each file is as likely as another.
        """
        settings = self.settings
        count = len(self.training_clips)
        chosen = np.random.default_rng((self.seed, step)).choice(
            count, settings.batch_size, replace=count < settings.batch_size
        )
        crops = [
            settings.augmentation.crop(
                self.training_clips[chosen[item]].samples,
                settings.crop_samples,
                # 0 would be the generator that chose.
                np.random.default_rng((self.seed, step, item + 1)),
            )
            for item in (range(settings.batch_size) if items is None else items)
        ]
        return torch.from_numpy(np.stack(crops)[:, None])

    def validate(self) -> dict[str, float]:
        """`mel_error`: mean absolute log10-mel difference of the copies of clips kept back.

        Each process computes all of it, so that the first alone may be asked.
        """
        total = torch.zeros((), device=self.device)
        frames = 0
        for audio in self._validation_audio():
            with torch.no_grad():
                mel = self.mel(audio)
                total += (self.mel(self._copy(audio)) - mel).abs().mean() * mel.shape[2]
            frames += mel.shape[2]
        return {"mel_error": float(total) / frames}

    def examples(self) -> dict[str, tuple[NDArray[np.float32], int]]:
        """The first seconds of clips kept back, and their copies: mono samples and their rate."""
        rate = self.settings.generator.mel.sample_rate_hertz
        sounds = {}
        for clip in self.validation_clips[:EXAMPLES]:
            audio = self._whole_hops(clip.samples[: round(EXAMPLE_SECONDS * rate)])
            for kind, sound in {"recording": audio, "copy": self._copy(audio)}.items():
                sounds[f"{kind}/{clip.name}"] = sound[0, 0].cpu().numpy(), rate
        return sounds

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
            },
            "validation_files": sorted({clip.name for clip in self.validation_clips}),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if undisturbed; the tensors are living."""
        return {
            "settings": asdict(self.settings),
            "seed": self.seed,
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
        refuse_other_settings(
            "MelGAN",
            {"seed": state["seed"], **state["settings"]},
            {"seed": self.seed, **asdict(self.settings)},
            besides=besides,
        )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self.close()

    def close(self) -> None:
        """Ends the thread that readies crops; another `step` starts it again."""
        if self._feed is not None:
            self._feed.close()
            self._waited_before = self.waited_seconds
            self._feed = None

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self._generator_optimizer,
            "discriminator_optimizer": self._discriminator_optimizer,
        }
        return parts | ({"average": self.average} if self.average else {})

    @cached_property
    def _statistics(self) -> dict[str, float]:
        clips = [*self.training_clips, *self.validation_clips]
        rate = self.settings.generator.mel.sample_rate_hertz
        return {
            "files": len({clip.name for clip in clips}),
            "seconds": sum(clip.samples.size for clip in clips) / rate,
            "peak": max(float(np.abs(clip.samples).max()) for clip in clips),
        }

    def _batch(self, step: int) -> Batch:
        """This process's share of what a step hears, in pinned memory if there is a GPU to read."""
        parts = (self.crops(step, self._share), self._noise(step, self._share))
        return Batch(*(p.pin_memory() if self.device.type == "cuda" else p for p in parts))

    def _noise(self, step: int, items: Sequence[int]) -> Tensor:
        """Other noise for every crop of every step, from seed and step alone."""
        settings = self.settings
        first = (self.seed * 1_000_003 + step) * settings.batch_size
        frames = settings.crop_samples // settings.generator.mel.hop_length
        return self.generator.draw_noise(frames, [(first + item) % 2**64 for item in items])

    def _copy(self, audio: Tensor) -> Tensor:
        return vocode(self.voice.eval(), self.mel(audio))

    def _validation_audio(self) -> Iterator[Tensor]:
        mel = self.settings.generator.mel
        left = round(self.settings.validation_seconds * mel.sample_rate_hertz)
        piece = round(VALIDATION_PIECE_SECONDS * mel.sample_rate_hertz)
        for clip in self.validation_clips:
            heard = clip.samples[: max(left, 1)]
            for start in range(0, heard.size, piece):
                yield self._whole_hops(heard[start : start + piece])
            left -= heard.size
            if left <= 0:
                return

    def _whole_hops(self, samples: NDArray[np.float32]) -> Tensor:
        """Those samples and silence, as many as can be vocoded: (1, 1, samples) on the device."""
        mel = self.settings.generator.mel
        shortest = mel.hop_length * self.settings.generator.shortest_frames
        length = max(samples.size, shortest, mel.shortest_samples)
        whole = -(-length // mel.hop_length) * mel.hop_length
        padded = F.pad(torch.from_numpy(samples.copy()), (0, whole - samples.size))
        return padded[None, None].to(self.device)

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(
            network.parameters(),
            lr=self.settings.learning_rate,
            betas=self.settings.betas,
            # Without a kernel of its own, a scaled step would wait for the GPU.
            fused=self.device.type == "cuda" or None,
        )
