"""MelGAN's training: discriminator and generator in turn (Kumar et al., 2019, arXiv:1910.06711)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from services.errors import SettingsMismatchError
from services.synth.clips import Clip, split_clips
from services.synth.mel import MelSpectrogram
from services.synth.melgan.discriminator import Discriminator, DiscriminatorSettings
from services.synth.melgan.generator import Generator, MelGanSettings, save_generator, vocode
from services.synth.melgan.initialization import fit_to_data
from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_reconstruction,
    multi_resolution_stft,
)


@dataclass(frozen=True)
class MelGanTraining:
    """How to train; the defaults are the published ones."""

    generator: MelGanSettings = field(default_factory=MelGanSettings)
    """What is trained."""
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    """What judges it."""
    batch_size: int = 16
    """Crops a step."""
    crop_samples: int = 8192
    """Length of each; whole hops."""
    learning_rate: float = 1e-4
    """Of both Adam optimizers."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Of both Adam optimizers."""
    feature_weight: float = 10.0
    """What feature matching counts beside the verdict."""
    mel_weight: float = 0.0
    """What the distance of log-mel spectrograms counts; none in the published training."""
    stft_weight: float = 0.0
    """What the multi-resolution STFT distance counts; none in the published training."""
    adversarial_from_step: int = 0
    """The step that first asks the discriminator; before it, only mel and STFT distances teach."""
    fit_to_data: bool = False
    """Whether the first weights are scaled to the first crops; not so in the published training."""
    validation_share: float = 0.1
    """Share of source files kept back."""
    validation_seconds: float = 30.0
    """How much of them is listened to in one validation."""

    def __post_init__(self) -> None:
        hop = self.generator.mel.hop_length
        shortest = hop * self.generator.shortest_frames
        if self.crop_samples % hop or self.crop_samples < shortest:
            raise SettingsMismatchError(
                f"MelGAN: a crop of {self.crop_samples} samples is not of whole hops of {hop}, or "
                f"shorter than {shortest}"
            )
        if self.batch_size < 1 or self.learning_rate <= 0:
            raise SettingsMismatchError("MelGAN: batch size and learning rate must be positive")
        if self.adversarial_from_step > 0 and not (self.mel_weight or self.stft_weight):
            raise SettingsMismatchError(
                "MelGAN: without a mel or STFT weight nothing teaches the generator before step "
                f"{self.adversarial_from_step}"
            )


class MelGanTrainer:
    """A MelGAN in training on `clips`; the same seed and clips give the same course on a CPU.

    Raises InvalidInputError if there are no clips.
    """

    def __init__(
        self,
        settings: MelGanTraining,
        clips: Sequence[Clip],
        *,
        device: torch.device | str,
        seed: int,
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.seed = seed
        self.steps = 0
        self.training_clips, self.validation_clips = split_clips(
            clips, settings.validation_share, seed
        )
        # Weights are drawn on the CPU, so that they are the same for every device, and without
        # moving the caller's random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(settings.generator).to(self.device)
            self.discriminator = Discriminator(settings.discriminator).to(self.device)
        self.mel = MelSpectrogram(settings.generator.mel).to(self.device)
        if settings.fit_to_data:
            first = self.crops(0).to(self.device)
            loudness = float(first.square().mean().sqrt())
            mel = self.mel(first)
            fit_to_data(self.generator, mel, self._noise(mel.shape[2]), loudness=loudness)
        self.generator_optimizer = self._adam(self.generator)
        self.discriminator_optimizer = self._adam(self.discriminator)

    def step(self) -> dict[str, Tensor]:
        """One update of the discriminator and one of the generator.

        Returns the losses by name as 0-d tensors on the device: reading one waits for the device,
        so read them when you show them.
        """
        settings = self.settings
        real = self.crops(self.steps).to(self.device)
        with torch.no_grad():
            mel = self.mel(real)
        fake = self.generator(mel, self._noise(mel.shape[2]))
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        if self.steps >= settings.adversarial_from_step:
            real_features = self.discriminator(real)
            losses["discriminator"] = hinge_discriminator(
                real_features, self.discriminator(fake.detach())
            )
            self.discriminator_optimizer.zero_grad()
            torch.autograd.backward(losses["discriminator"])
            self.discriminator_optimizer.step()
            fake_features = self.discriminator(fake)
            losses["generator"] = hinge_generator(fake_features)
            losses["feature_matching"] = feature_matching(real_features, fake_features)
            total = losses["generator"] + settings.feature_weight * losses["feature_matching"]
        if settings.mel_weight:
            losses["mel_reconstruction"] = mel_reconstruction(mel, self.mel(fake))
            total = total + settings.mel_weight * losses["mel_reconstruction"]
        if settings.stft_weight:
            losses["stft"] = multi_resolution_stft(real, fake)
            total = total + settings.stft_weight * losses["stft"]
        self.generator_optimizer.zero_grad()
        torch.autograd.backward(total)
        self.generator_optimizer.step()
        self.steps += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def crops(self, step: int) -> Tensor:
        """The crops of one step: (batch_size, 1, crop_samples) float32 on the CPU.

        They follow from seed and step alone, so no two steps and no two epochs repeat each other
        and a resumed training goes on as if undisturbed. Each file is as likely as another.
        """
        settings = self.settings
        random = np.random.default_rng((self.seed, step))
        count = len(self.training_clips)
        chosen = random.choice(count, settings.batch_size, replace=count < settings.batch_size)
        batch = np.zeros((settings.batch_size, 1, settings.crop_samples), np.float32)
        for row, number in zip(batch, chosen, strict=True):
            samples = self.training_clips[number].samples
            spare = samples.size - settings.crop_samples
            start = int(random.integers(spare + 1)) if spare > 0 else 0
            crop = samples[start : start + settings.crop_samples]
            row[0, : crop.size] = crop
        return torch.from_numpy(batch)

    def validate(self) -> dict[str, float]:
        """`mel_error`: mean absolute log10-mel difference of the copies of clips kept back."""
        total = 0.0
        frames = 0
        self.generator.eval()
        for audio in self._validation_audio():
            with torch.no_grad():
                mel = self.mel(audio)
                copy = self.mel(vocode(self.generator, mel))
            total += float((copy - mel).abs().mean()) * mel.shape[2]
            frames += mel.shape[2]
        self.generator.train()
        return {"mel_error": total / frames}

    def weights(self) -> bytes:
        """The generator as safetensors, for `load_generator`."""
        return save_generator(self.generator)

    def config(self) -> dict[str, Any]:
        """What `load_generator` needs, and where the model comes from, as JSON-able values."""
        training = asdict(self.settings)
        del training["generator"]
        clips = [*self.training_clips, *self.validation_clips]
        rate = self.settings.generator.mel.sample_rate_hertz
        return {
            "family": "melgan",
            **self.settings.generator.to_config(),
            "statistics": {
                "files": len({clip.name for clip in clips}),
                "seconds": sum(clip.samples.size for clip in clips) / rate,
                "peak": max(float(np.abs(clip.samples).max()) for clip in clips),
            },
            "training": {**training, "seed": self.seed, "steps": self.steps},
        }

    def _noise(self, frames: int) -> Tensor:
        """Other noise for every crop of every step, from seed and step alone."""
        first = (self.seed * 1_000_003 + self.steps) * self.settings.batch_size
        seeds = [(first + item) % 2**64 for item in range(self.settings.batch_size)]
        return self.generator.draw_noise(frames, seeds).to(self.device)

    def _validation_audio(self) -> Iterator[Tensor]:
        mel = self.settings.generator.mel
        shortest = mel.hop_length * self.settings.generator.shortest_frames
        shortest = max(shortest, mel.shortest_samples)
        left = round(self.settings.validation_seconds * mel.sample_rate_hertz)
        for clip in self.validation_clips:
            if left <= 0:
                return
            samples = torch.from_numpy(clip.samples[: max(left, 1)].copy())
            left -= samples.numel()
            whole = -(-max(samples.numel(), shortest) // mel.hop_length) * mel.hop_length
            yield F.pad(samples, (0, whole - samples.numel()))[None, None].to(self.device)

    def _adam(self, module: torch.nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(
            module.parameters(), lr=self.settings.learning_rate, betas=self.settings.betas
        )
