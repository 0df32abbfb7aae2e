"""Training of a predictor on z-scores, by the loss of its network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from services.audio.track import DescriptorTrack
from services.learning.averaging import averaged, follow
from services.learning.resumption import refuse_other_settings
from services.learning.world import ALONE, World
from services.predictor.config import PredictorConfig
from services.predictor.loading import ARCHITECTURES
from services.predictor.networks.network import Network, NetworkShape, OneStepNetwork
from services.predictor.training.batches import Batches, InParts, Shuffled
from services.predictor.training.corpus import Corpus
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.static_tracks import without_deltas
from services.predictor.training.validation import Validation

FITTED_WINDOWS = 32768
"""Windows that a linear forecast is fitted to at most."""
FITTED_AT_ONCE = 1024
PUBLISHED_DECAY = 0.95
ENCODER_ONLY = "TransformerEncoderOnlyModel"


class PredictorTrainer:
    """Trains one predictor, one optimisation step a call.

    The same settings, tracks and seed give the same weights on the same kind of device. What is
    drawn in a step follows from seed, step and rank alone: each seeds torch's global generators
    anew, so that a training which goes on from its state needs no random state. With others in
    `world`, it learns from its share of each batch.
    """

    def __init__(
        self,
        settings: PredictorTraining,
        tracks: Sequence[DescriptorTrack],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        world: World = ALONE,
    ) -> None:
        """Cuts the tracks into windows, see `Corpus.of` for the errors, and draws the weights.

        Raises InvalidInputError if deltas are to be computed of features that have none.
        """
        architecture = ARCHITECTURES[settings.selected_model]
        self.settings = settings
        self.seed = seed
        self.world = world
        self._forecast_frames = architecture.frames_ahead(settings.forecast_size)
        self._ahead = self._forecast_frames
        if issubclass(architecture, OneStepNetwork):
            self._ahead = settings.rollout_frames
        names = None
        if settings.deltas == "computed":
            tracks = without_deltas(tracks)
            names = tracks[0].feature_names if tracks else None
        self.corpus = Corpus.of(
            tracks,
            window_frames=settings.window_size,
            frames_ahead=self._ahead,
            outlier_deviations=settings.outlier_deviations,
            validation_share=settings.validation_share,
            seed=settings.validation_seed,
            feature_names=names,
        )
        self._shape = NetworkShape(
            feature_count=len(self.corpus.statistics.feature_names),
            hidden_size=settings.hidden_size,
            num_layers=settings.num_layers,
            nhead=settings.nhead,
            dim_feedforward=settings.dim_feedforward,
            dropout=settings.dropout,
            dim_pos_encoding=settings.dim_pos_encoding,
            num_encoder_layers=settings.num_encoder_layers,
            anchor=settings.anchor,
            attention_frames=settings.attention_frames,
            mixtures=settings.mixtures,
        )
        torch.manual_seed(seed)
        self._device = torch.device(device)
        self.network: Network = architecture(self._shape).to(self._device)
        length = settings.window_size + self._ahead
        self._training = Batches(self.corpus.training, length, self._device)
        self.average = averaged(self.network) if settings.average_decay else None
        encoder_only = settings.selected_model == ENCODER_ONLY
        optimizer = torch.optim.AdamW if encoder_only else torch.optim.Adam
        self._optimizer = optimizer(
            self.network.parameters(),
            lr=settings.learning_rate,
            # Without a kernel of its own, a scaled step would wait for the GPU.
            fused=self._device.type == "cuda" or None,
        )
        self._scaler = settings.precision.scaler(self._device)
        self._learn = settings.precision.compiled(_Objective(self.network, settings.window_size))
        self._shuffled = Shuffled(self._training.starts, settings.batch_size, seed)
        self._validation = Validation(
            self.corpus.validation, settings, length, self._forecast_frames, self._device
        )
        self.steps = 0
        self.waited_seconds = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every training window once."""
        return self._shuffled.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.settings.steps or self.steps_per_epoch * self.settings.epochs

    @property
    def kept(self) -> Network:
        """What is validated and stored: the averaged network where there is one."""
        return self.network if self.average is None else self.average

    def step(self) -> dict[str, Tensor]:
        """One optimisation step on the next batch; the first one fits before what is fitted.

        Returns 0-d tensors on the device: the loss, under its network's name, "learning_rate" and
        "gradient_norm/network", before clipping. Reading one waits for the device.
        """
        settings = self.settings
        if self.steps == 0:
            self._fit()
        rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        with settings.precision.arithmetic():
            loss = self._loss()
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(self._scaler.scale(loss))
            self.world.average_gradients(self.network)
            self._scaler.unscale_(self._optimizer)
            norm = nn.utils.clip_grad_norm_(
                self.network.parameters(), settings.gradient_clip or math.inf
            )
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self.steps += 1
        if self.average is not None:
            follow(self.average, self.network, settings.average_decay, self.steps)
        figures = {self.network.loss_name: loss.detach(), "gradient_norm/network": norm.detach()}
        return self.world.average(figures) | {
            "learning_rate": torch.full((), rate, device=self._device)
        }

    def validate(self) -> dict[str, float]:
        """Figures on what was held out, the smaller the better: see `Validation.figures`.

        Each process computes all of it, so that the first alone may be asked.
        """
        return self._validation.figures(self.kept)

    def weights(self) -> bytes:
        """The weights as they stand, as safetensors; the averaged ones if there are any."""
        state = self.kept.state_dict()
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})

    def config(self) -> dict[str, Any]:
        """The config.json that `load_predictor` needs beside the weights."""
        statistics = self.corpus.statistics
        return PredictorConfig(
            architecture=self.settings.selected_model,
            shape=self._shape,
            window_frames=self.settings.window_size,
            forecast_frames=self._forecast_frames,
            feature_names=statistics.feature_names,
            means=tuple(statistics.means.tolist()),
            standard_deviations=tuple(np.sqrt(statistics.variances).tolist()),
            sample_rate_hertz=self.corpus.sample_rate_hertz,
            hop_length_samples=self.corpus.hop_length_samples,
            deltas=self.settings.deltas,
            training=asdict(self.settings)
            | {
                "planned_steps": self.settings.steps,
                "seed": self.seed,
                "steps": self.steps,
                "devices": self.world.size,
                "validation_files": list(self.corpus.held_out),
                "held_out_start": self.corpus.held_out_start,
            },
        ).to_json()

    def state_dict(self) -> dict[str, Any]:
        """All that going on from here needs, as tensors and plain values."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "settings": self._recorded,
            "steps": self.steps,
        }
        return state if self.average is None else state | {"average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave: the weights then follow bit for bit on a CPU.

        Raises SettingsMismatchError naming a setting that was another. `steps` may differ where
        the learning rate does not follow from it, so that a training can be made longer.
        """
        besides = [] if self.settings.schedule == "cosine" else ["steps"]
        refuse_other_settings("predictor", state["settings"], self._recorded, besides=besides)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.steps = int(state["steps"])

    def examples(self) -> dict[str, tuple[NDArray[np.float32], int]]:
        """Sound to hear: none, for descriptors are none."""
        return {}

    @property
    def _recorded(self) -> dict[str, Any]:
        return asdict(self.settings) | {"seed": self.seed}

    def _fit(self) -> None:
        """Fits in the first process, whose sums may differ from another's in their last bits."""
        if self.world.is_first:
            starts = self._training.spread(FITTED_WINDOWS)
            parts = InParts(self._training, starts, FITTED_AT_ONCE)
            self.network.fit(parts, self.settings.window_size)
        self.world.copy_from_first(self.network)
        if self.average is not None:
            self.average.load_state_dict(self.network.state_dict())

    def _learning_rate(self) -> float:
        settings = self.settings
        rate = settings.learning_rate
        if self.steps < settings.warmup_steps:
            rate *= (self.steps + 1) / settings.warmup_steps
        if settings.schedule == "cosine":
            done = min(self.steps / self.total_steps, 1.0)
            return rate * (1 + math.cos(math.pi * done)) / 2
        if settings.schedule == "published" and settings.selected_model == ENCODER_ONLY:
            return rate * PUBLISHED_DECAY ** (self.steps // self.steps_per_epoch)
        return rate

    def _loss(self) -> Tensor:
        """The loss of this process's share, weighted so that the mean over all is the batch's."""
        world, noise = self.world, self.settings.input_noise
        draws = np.random.SeedSequence((self.seed, self.steps)).generate_state(
            world.size, np.uint64
        )
        torch.manual_seed(int(draws[0]))
        frames, counts = self._training.at(self._shuffled.at(self.steps))
        # Drawn for all of the batch, so that several processes draw what one would.
        heard = frames + noise * torch.randn_like(frames) if noise else frames
        if world.size == 1:
            with self.settings.precision.autocast(self._device):
                whole: Tensor = self._learn(frames, heard, counts)
            return whole
        told = self.network.frames_told(self.settings.window_size, self._ahead)
        total = counts[:, -told:].sum()
        mine = slice(world.rank, None, world.size)
        if len(frames) <= world.rank:
            # More processes than windows: one window, which does not count.
            mine, counts = slice(0, 1), torch.zeros_like(counts)
        frames, heard, counts = frames[mine], heard[mine], counts[mine]
        torch.manual_seed(int(draws[world.rank]))
        with self.settings.precision.autocast(self._device):
            loss: Tensor = self._learn(frames, heard, counts)
        return loss * (world.size * counts[:, -told:].sum() / total.clamp(min=1))


class _Objective(nn.Module):
    """The loss of a network as a module of its own, which can be compiled."""

    def __init__(self, network: Network, window_frames: int) -> None:
        super().__init__()
        self._network = network
        self._window_frames = window_frames

    def forward(self, frames: Tensor, heard: Tensor, counts: Tensor) -> Tensor:
        return self._network.loss(frames, heard, counts, self._window_frames)
