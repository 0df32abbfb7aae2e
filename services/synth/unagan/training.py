"""Training of UNAGAN: BEGAN with cycle regularization (Liu et al., Interspeech 2020)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from services.learning.adam import adam
from services.learning.array_cache import ArrayCache
from services.learning.averaging import averaged, follow
from services.learning.resumption import refuse_other_settings
from services.learning.schedule import learning_rate
from services.learning.supply import Supply
from services.learning.world import ALONE, World
from services.synth.corpus.clips import Clip
from services.synth.unagan.batches import Batch, Batches
from services.synth.unagan.corpus import split_corpus
from services.synth.unagan.examples import examples
from services.synth.unagan.generator import Generator, Unagan
from services.synth.unagan.losses import Equilibrium, distance, mel_distance
from services.synth.unagan.moments import Moments
from services.synth.unagan.networks import draw_networks
from services.synth.unagan.training_settings import UnaganTraining

VALIDATION_SEED = 123
CRITIC = "discriminator"
# Of crops that tell the corpus's moments: 25 minutes at the published rate.
MOMENT_FRAMES = 2**18


class UnaganTrainer:
    """Trains generator, discriminator and, with cycles, encoder, a step a call.

    The same settings, clips and seed give the same weights on the same device. `tell` hears of how
    many clips of how many the mels are made.

    Several devices (`world`) each draw and learn their share of the batch. Gradients and the losses
    that move k are averaged over them, so all hold the same networks and the same k. Batch norm
    normalises by each device's own share, so the course is not quite that of one device with the
    whole batch, and the running statistics of discriminator and encoder, which only `validate`
    uses, are each device's own. The generator has no batch norm.

    Raises InvalidInputError if no clip can be heard, SettingsMismatchError if the batch does not
    divide among the devices.
    """

    def __init__(
        self,
        settings: UnaganTraining,
        clips: Sequence[Clip],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        world: World = ALONE,
        cache: ArrayCache | None = None,
        tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - tells nobody
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.seed = seed
        self.steps = 0
        self._world = world
        items = world.share(settings.batch_size)
        self._training, self._validation = split_corpus(
            settings, clips, seed, cache=cache, tell=tell
        )
        networks = draw_networks(settings, seed, self.device)
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.encoder = networks.encoder
        self._networks = networks.by_name()
        self._called = {
            name: settings.precision.compiled(network) for name, network in self._networks.items()
        }
        self._averaged = averaged(self.generator) if settings.average_decay else None
        self._batches = Batches(
            settings, self._training, self.generator.recurrent_blocks, seed, items
        )
        self._supply = Supply(self._batches.make, self.device)
        self._moments = (
            Moments.of(self._batches.many_crops(MOMENT_FRAMES)).to(self.device)
            if settings.moments_weight
            else None
        )
        self._optimizers = {
            name: adam(network, settings.learning_rate, self.device)
            for name, network in self._networks.items()
        }
        self._scaler = settings.precision.scaler(self.device)
        self._equilibrium = Equilibrium(
            settings.gamma, settings.lambda_k, torch.tensor(settings.init_k, device=self.device)
        )

    @property
    def waited_seconds(self) -> float:
        """How long the device has waited for batches, in all."""
        return self._supply.waited_seconds

    def step(self) -> dict[str, Tensor]:
        """One step of all networks on a fresh batch.

        Returns losses, k, learning rate and gradient norms before clipping, 0-d, on the device:
        means over all devices, but for the norms, which are of the mean gradients.
        """
        batch = self._supply.next(self.steps).to(self.device)
        rate = self._learning_rate()
        for name, network in self._networks.items():
            network.train()
            self._optimizers[name].param_groups[0]["lr"] = rate
        with self.settings.precision.arithmetic():
            # What generated mels cost is the generator's business: the discriminator's own
            # gradients of it would be thrown away.
            self.discriminator.requires_grad_(False)
            generated, losses = self._generator_losses(batch, self._called["generator"])
            self.discriminator.requires_grad_(True)
            total = losses["generator"]
            if self.encoder:
                cycles = losses["noise_cycle"] + losses["mel_cycle"]
                total = total + self.settings.lambda_cycle * cycles
            if self._moments:
                losses["moments"] = Moments.of(generated.float()).distance(self._moments)
                total = total + self.settings.moments_weight * losses["moments"]
            norms = self._descend(total, [name for name in self._networks if name != CRITIC])
            losses |= self._discriminator_losses(batch.real, generated.detach())
            norms |= self._descend(losses["discriminator"], [CRITIC])
        self._scaler.update()
        losses = self._world.average({name: loss.detach() for name, loss in losses.items()})
        self._equilibrium.update(losses["real"], losses["generated"])
        self.steps += 1
        if self._averaged:
            follow(self._averaged, self.generator, self.settings.average_decay, self.steps)
        return {
            **losses,
            "k": self._equilibrium.k,
            "learning_rate": torch.full((), rate, device=self.device),
            **norms,
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean figures on held-out crops, always on the same ones and noise; lower is better.

        `convergence` is BEGAN's measure, `mel_distance` that between as many generated crops and
        the held-out ones, in standard deviations of the corpus. Speaks to no other device.
        """
        for network in self._networks.values():
            network.eval()
        sums: dict[str, float] = {}
        reals, fakes = [], []
        crops = self._validation.batches(self.settings.batch_size, self.settings.validation_crops)
        for number, real in enumerate(crops):
            drawn = self._batches.noise(
                (VALIDATION_SEED, number, item) for item in range(len(real))
            )
            batch = Batch(real, *drawn).to(self.device)
            generated, losses = self._generator_losses(batch, self._singer)
            losses |= self._discriminator_losses(batch.real, generated)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss) * len(real)
            reals.append(real)
            fakes.append(generated.float().cpu())
        held_out = torch.cat(reals)
        figures = {name: total / len(held_out) for name, total in sums.items()}
        figures["mel_distance"] = float(mel_distance(torch.cat(fakes), held_out))
        return figures

    def weights(self) -> bytes:
        """The generator, averaged over the steps if the settings say so, as safetensors."""
        state = self._singer.state_dict()
        return save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()})

    def config(self) -> dict[str, Any]:
        """What load_generator needs beside the weights, and how they came about."""
        return {
            "family": "unagan",
            **self.settings.networks.to_config(),
            "mean": self._training.mean.tolist(),
            "std": self._training.std.tolist(),
            "training": {
                **self.settings.to_config(),
                "planned_steps": self.settings.steps,
                "seed": self.seed,
                "steps": self.steps,
                "devices": self._world.size,
                "validation_files": sorted({clip.name for clip in self._validation.clips}),
            },
            "validation_figure": self.settings.validation_figure,
        }

    def examples(self) -> Mapping[str, tuple[NDArray[np.float32], int]]:
        """Held-out sound, and what is sung, voiced by Griffin-Lim: mono samples and their rate."""
        unagan = Unagan(
            self.settings.networks,
            self._singer.eval(),
            self._training.mean.to(self.device),
            self._training.std.to(self.device),
        )
        return examples(unagan, self._validation.clips[0])

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; a view of it, so store it before that step."""
        state: dict[str, Any] = {
            "settings": asdict(self.settings),
            "seed": self.seed,
            "steps": self.steps,
            "k": self._equilibrium.k,
            "networks": {name: network.state_dict() for name, network in self._networks.items()},
            "optimizers": {name: adam.state_dict() for name, adam in self._optimizers.items()},
            "scaler": self._scaler.state_dict(),
        }
        return state | ({"averaged": self._averaged.state_dict()} if self._averaged else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` stood; the trainer must have been made of the same clips.

        With a constant learning rate the number of steps may differ: so a training is prolonged.
        Raises SettingsMismatchError, naming them, for other settings or another seed.
        """
        own = {**asdict(self.settings), "seed": self.seed}
        free = () if self.settings.schedule == "cosine" else ("steps",)
        # What a later version lets be set was at its default before.
        stored = {**asdict(UnaganTraining()), **state["settings"], "seed": state["seed"]}
        refuse_other_settings("UNAGAN", stored, own, besides=free)
        for name, network in self._networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimizers[name].load_state_dict(state["optimizers"][name])
        if self._averaged:
            self._averaged.load_state_dict(state["averaged"])
        self._scaler.load_state_dict(state["scaler"])
        self._equilibrium.k = state["k"].to(self.device)
        self.steps = int(state["steps"])
        self.close()

    def close(self) -> None:
        """Ends the thread that readies batches; another `step` starts it again."""
        self._supply.close()

    @property
    def _singer(self) -> Generator:
        """The generator that is judged and stored."""
        return self._averaged or self.generator

    def _learning_rate(self) -> float:
        chosen = self.settings
        return learning_rate(
            self.steps,
            chosen.learning_rate,
            chosen.schedule,
            steps=chosen.steps,
            floor=chosen.learning_rate_floor,
        )

    def _generator_losses(
        self, batch: Batch, generator: nn.Module
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Generated mels, of the shape of `real`, and what they cost the generator."""
        with self.settings.precision.autocast(self.device):
            if self.encoder is None:
                generated = generator(batch.z, batch.states.unbind())
                redrawn = self._called[CRITIC](generated)
                return generated, {"generator": distance(redrawn, generated)}
            # One pass for both, since no layer of the generator looks across items: recurrent
            # blocks cost by the frame, hardly by the item.
            encoder = self._called["encoder"]
            z = torch.cat([batch.z, encoder(batch.real).float()])
            generated, copied = generator(z, batch.states.unbind()).chunk(2)
            return generated, {
                "generator": distance(self._called[CRITIC](generated), generated),
                "noise_cycle": distance(encoder(generated), batch.z),
                "mel_cycle": distance(copied, batch.real),
            }

    def _discriminator_losses(self, real: Tensor, generated: Tensor) -> dict[str, Tensor]:
        discriminator = self._called[CRITIC]
        with self.settings.precision.autocast(self.device):
            real_loss = distance(discriminator(real), real)
            generated_loss = distance(discriminator(generated), generated)
        return {
            "real": real_loss,
            "generated": generated_loss,
            "discriminator": self._equilibrium.discriminator_loss(real_loss, generated_loss),
            "convergence": self._equilibrium.convergence(real_loss, generated_loss),
        }

    def _descend(self, loss: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """One step of Adam down `loss`, for these networks only; the norms of their gradients."""
        for name in names:
            self._networks[name].zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        norms = {}
        for name in names:
            network, adam = self._networks[name], self._optimizers[name]
            # Averaged first: so a gradient that is not finite is seen by all, or by none.
            self._world.average_gradients(network)
            self._scaler.unscale_(adam)
            norms[f"gradient_norm/{name}"] = clip_grad_norm_(
                network.parameters(), self.settings.max_gradient_norm
            )
            self._scaler.step(adam)
        return norms
