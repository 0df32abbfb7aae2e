"""Training of UNAGAN: BEGAN with cycle regularization (Liu et al., Interspeech 2020).

Every clip is peak-normalised by itself. Clips shorter than a crop are looped to its length, since
padding would teach silence; silent clips are left out. Crops are drawn so that every moment of the
corpus is equally likely, from one random stream that is never reset: no step repeats another's
crops or noise, and fewer clips than a batch are enough.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from services.errors import InvalidInputError
from services.synth.clips import Clip, split_clips
from services.synth.mel import MelSpectrogram
from services.synth.unagan.discriminator import Discriminator
from services.synth.unagan.encoder import Encoder
from services.synth.unagan.generator import build_generator
from services.synth.unagan.losses import Equilibrium, distance
from services.synth.unagan.presets import UnaganTraining

# 0.01 of log10 is 0.2 dB: a band that hardly moves is not blown up to what is heard.
MIN_DEVIATION = 0.01
VALIDATION_SEED = 123


class Corpus:
    """Z-scored log-mels of audible clips, each at least a crop long; `mean`, `std`: (n_mels,)."""

    def __init__(
        self,
        settings: UnaganTraining,
        clips: Sequence[Clip],
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.frames = settings.segment_frames
        spectrogram = MelSpectrogram(settings.networks.mel)
        mels = [peak_normalised_mel(clip, spectrogram, self.frames) for clip in clips]
        lengths = torch.tensor([clip.samples.size for clip in clips], dtype=torch.float64)
        self._weights = lengths / lengths.sum()
        self.mean, self.std = statistics or _moments(mels, self._weights)
        self._mels = [(mel - self.mean[:, None]) / self.std[:, None] for mel in mels]

    def draw(self, batch: int, random: torch.Generator) -> Tensor:
        """Crops (batch, n_mels, frames), every moment of the corpus equally likely."""
        clips = torch.multinomial(self._weights, batch, replacement=True, generator=random)
        crops = []
        for clip in clips.tolist():
            mel = self._mels[clip]
            last = mel.shape[1] - self.frames
            start = int(torch.randint(last + 1, (), generator=random))
            crops.append(mel[:, start : start + self.frames])
        return torch.stack(crops)

    def batches(self, batch: int) -> list[Tensor]:
        """Everything in crops side by side: (at most batch, n_mels, frames) each."""
        crops = [
            crop
            for mel in self._mels
            for crop in torch.split(mel, self.frames, dim=1)
            if crop.shape[1] == self.frames
        ]
        return [torch.stack(crops[i : i + batch]) for i in range(0, len(crops), batch)]


def peak_normalised_mel(clip: Clip, spectrogram: MelSpectrogram, frames: int) -> Tensor:
    """Log-mels (n_mels, at least `frames`) of a clip with its peak at 1, looped if it is shorter.

    The clip must be audible.
    """
    mel = spectrogram.settings
    wanted = max(frames * mel.hop_length, mel.shortest_samples, clip.samples.size)
    samples = np.resize(clip.samples / np.abs(clip.samples).max(), wanted)
    with torch.no_grad():
        spectrum: Tensor = spectrogram(torch.from_numpy(samples)[None, None])
    return spectrum[0]


def _audible(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.samples.any()]


def _moments(mels: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band, (n_mels,), each clip counting by its weight."""
    means = torch.stack([mel.double().mean(dim=1) for mel in mels])
    variances = torch.stack([mel.double().var(dim=1, correction=0) for mel in mels])
    mean = weights @ means
    variance = weights @ (variances + (means - mean) ** 2)
    return mean.float(), variance.sqrt().clamp(min=MIN_DEVIATION).float()


def mel_distance(first: Tensor, second: Tensor) -> Tensor:
    """How far apart two sets of log-mels (B, n_mels, T) sound, 0-d, 0 for equal sets.

    Mean over the bands of the differences of mean, standard deviation and mean absolute change
    from frame to frame: the last tells the frozen and the restless from the real.
    """

    def figures(mels: Tensor) -> Tensor:
        bands = mels.transpose(0, 1)
        return torch.stack(
            [
                bands.mean(dim=(1, 2)),
                bands.std(dim=(1, 2), correction=0),
                bands.diff(dim=2).abs().mean(dim=(1, 2)),
            ]
        )

    return (figures(first) - figures(second)).abs().sum(dim=0).mean()


class UnaganTrainer:
    """Trains generator, discriminator and, with cycles, encoder, a step a call.

    The same settings, clips and seed give the same weights on the same device.
    """

    def __init__(
        self,
        settings: UnaganTraining,
        clips: Sequence[Clip],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.seed = seed
        self.steps = 0
        audible = _audible(clips)
        if not audible:
            raise InvalidInputError("no clip holds any sound: there is nothing to learn from")
        training, validation = split_clips(audible, settings.validation_share, seed)
        # Of a single file, one side of the split may be silent.
        self._training = Corpus(settings, _audible(training) or audible)
        self._validation = Corpus(
            settings, _audible(validation) or audible, (self._training.mean, self._training.std)
        )
        self._random = torch.Generator().manual_seed(seed)
        networks = settings.networks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = build_generator(networks).to(self.device)
            self.discriminator = Discriminator(networks.feat_dim, networks.middle_dim).to(
                self.device
            )
            self.encoder = (
                Encoder(
                    networks.feat_dim,
                    networks.z_dim,
                    networks.z_scale_factors,
                    networks.middle_dim,
                ).to(self.device)
                if settings.cycle
                else None
            )
        self._optimizers = {
            network: torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
            for network in self._networks
        }
        self._equilibrium = Equilibrium(
            settings.gamma, settings.lambda_k, torch.tensor(settings.init_k, device=self.device)
        )

    @property
    def _networks(self) -> list[nn.Module]:
        networks: list[nn.Module] = [self.generator, self.discriminator]
        return networks + ([self.encoder] if self.encoder else [])

    def step(self) -> dict[str, Tensor]:
        """One step of all networks on a fresh batch; the losses, 0-d, on the device."""
        for network in self._networks:
            network.train()
        batch = self.settings.batch_size
        real = self._training.draw(batch, self._random).to(self.device)
        generated, losses = self._generator_losses(real, self._random)
        total = losses["generator"]
        if self.encoder:
            cycles = losses["noise_cycle"] + losses["mel_cycle"]
            total = total + self.settings.lambda_cycle * cycles
        self._descend(total, [self.generator] + ([self.encoder] if self.encoder else []))

        losses |= self._discriminator_losses(real, generated.detach())
        self._descend(losses["discriminator"], [self.discriminator])
        self._equilibrium.update(losses["real"], losses["generated"])
        losses["k"] = self._equilibrium.k
        self.steps += 1
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean figures on the held-out clips, always on the same crops and noise; lower is better.

        `convergence` is BEGAN's measure, `mel_distance` that between as many generated crops and
        the held-out ones, in standard deviations of the corpus.
        """
        for network in self._networks:
            network.eval()
        random = torch.Generator().manual_seed(VALIDATION_SEED)
        sums: dict[str, float] = {}
        reals, fakes = [], []
        for batch in self._validation.batches(self.settings.batch_size):
            real = batch.to(self.device)
            generated, losses = self._generator_losses(real, random)
            losses |= self._discriminator_losses(real, generated)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss) * len(batch)
            reals.append(batch)
            fakes.append(generated.cpu())
        held_out = torch.cat(reals)
        figures = {name: total / len(held_out) for name, total in sums.items()}
        figures["mel_distance"] = float(mel_distance(torch.cat(fakes), held_out))
        return figures

    def weights(self) -> bytes:
        """The generator as safetensors."""
        state = self.generator.state_dict()
        return save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()})

    def config(self) -> dict[str, Any]:
        """What load_generator needs beside the weights, and how they came about."""
        return {
            "family": "unagan",
            **self.settings.networks.to_config(),
            "mean": self._training.mean.tolist(),
            "std": self._training.std.tolist(),
            "training": {**self.settings.to_config(), "seed": self.seed, "steps": self.steps},
            "validation_figure": self.settings.validation_figure,
        }

    def _generator_losses(
        self, real: Tensor, random: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Generated mels, of the shape of `real`, and what they cost the generator."""
        batch, _, frames = real.shape
        networks = self.settings.networks
        shape = (batch, networks.z_dim, frames // networks.frames_per_z)
        z = torch.randn(shape, generator=random).to(self.device)
        if self.encoder is None:
            generated = self._generate(z, random)
            return generated, {"generator": distance(self.discriminator(generated), generated)}
        # One pass for both, since no layer of the generator looks across items: recurrent blocks
        # cost by the frame, hardly by the item.
        both = self._generate(torch.cat([z, self.encoder(real)]), random)
        generated, copied = both.chunk(2)
        return generated, {
            "generator": distance(self.discriminator(generated), generated),
            "noise_cycle": distance(self.encoder(generated), z),
            "mel_cycle": distance(copied, real),
        }

    def _generate(self, z: Tensor, random: torch.Generator) -> Tensor:
        states = self.generator.draw_states(len(z), random)
        mel: Tensor = self.generator(z, [state.to(self.device) for state in states])
        return mel

    def _discriminator_losses(self, real: Tensor, generated: Tensor) -> dict[str, Tensor]:
        real_loss = distance(self.discriminator(real), real)
        generated_loss = distance(self.discriminator(generated), generated)
        return {
            "real": real_loss,
            "generated": generated_loss,
            "discriminator": self._equilibrium.discriminator_loss(real_loss, generated_loss),
            "convergence": self._equilibrium.convergence(real_loss, generated_loss),
        }

    def _descend(self, loss: Tensor, networks: Sequence[nn.Module]) -> None:
        """One step of Adam down `loss`, for these networks only."""
        for network in networks:
            network.zero_grad()
        torch.autograd.backward(loss)
        for network in networks:
            clip_grad_norm_(network.parameters(), self.settings.max_gradient_norm)
            self._optimizers[network].step()
