"""Training of the four published predictors: squared error on z-scores, teacher forcing."""

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
from services.errors import SettingsMismatchError
from services.predictor.config import PredictorConfig
from services.predictor.loading import ARCHITECTURES
from services.predictor.networks.network import NetworkShape
from services.predictor.port import never_stop
from services.predictor.training.corpus import Corpus, Windows
from services.predictor.training.settings import PredictorTraining

PUBLISHED_DECAY = 0.95
FREE_RUNS = 16
FREE_RUN_FRAMES = 64
FREE_RUN_STRETCHES = 8
STANDSTILL = 0.01
ENCODER_ONLY = "TransformerEncoderOnlyModel"


class PredictorTrainer:
    """Trains one predictor, one optimisation step a call.

    The same settings, tracks and seed give the same weights on the same kind of device. What is
    drawn in a step follows from seed and step alone: each seeds torch's global generators anew, so
    that a training which goes on from its state needs no random state.
    """

    def __init__(
        self,
        settings: PredictorTraining,
        tracks: Sequence[DescriptorTrack],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """Cuts the tracks into windows, see `Corpus.of` for the errors, and draws the weights."""
        architecture = ARCHITECTURES[settings.selected_model]
        self.settings = settings
        self.seed = seed
        self._ahead = architecture.frames_ahead(settings.forecast_size)
        self.corpus = Corpus.of(
            tracks,
            window_frames=settings.window_size,
            frames_ahead=self._ahead,
            outlier_deviations=settings.outlier_deviations,
            validation_share=settings.validation_share,
            seed=seed,
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
        self.network = architecture(self._shape).to(self._device)
        encoder_only = settings.selected_model == ENCODER_ONLY
        optimizer = torch.optim.AdamW if encoder_only else torch.optim.Adam
        self._optimizer = optimizer(self.network.parameters(), lr=settings.learning_rate)
        self._training = _Batches(self.corpus.training, self._length, self._device)
        self._validation = _Batches(self.corpus.validation, self._length, self._device)
        self._order: tuple[int, Tensor] = (-1, self._training.starts)
        self.steps = 0
        self.waited_seconds = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every training window once."""
        return math.ceil(len(self._training.starts) / self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of all epochs together."""
        return self.steps_per_epoch * self.settings.epochs

    def step(self) -> dict[str, Tensor]:
        """One optimisation step on the next batch.

        Returns 0-d tensors: "mse", "learning_rate" and "gradient_norm/network", before clipping.
        """
        draw = np.random.SeedSequence((self.seed, self.steps)).generate_state(1, np.uint64)
        torch.manual_seed(int(draw[0]))
        learning_rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self.network.train()
        loss = self._loss(self._training, self._next_starts(), self.settings.input_noise)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.settings.gradient_clip or math.inf
        )
        self._optimizer.step()
        self.steps += 1
        return {
            "mse": loss.detach(),
            "learning_rate": torch.tensor(learning_rate),
            "gradient_norm/network": norm.detach(),
        }

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Figures on what was held out, the smaller the better: {"mse", "free_run"}.

        `mse` is the mean squared error on all held-out windows, in z-scores. `free_run` tells how
        far a long continuation moves unlike the recordings: the mean distance of the logarithms of
        spread and pace, 0 if they are alike. The error alone favours models that go flat once they
        hear nothing but themselves.
        """
        self.network.eval()
        batches = torch.split(self._validation.starts, self.settings.batch_size)
        losses = torch.stack([self._loss(self._validation, starts, 0.0) for starts in batches])
        sizes = torch.tensor([float(len(starts)) for starts in batches], device=self._device)
        mse = float((losses * sizes).sum() / sizes.sum())
        return {"mse": mse, "free_run": self._free_run()}

    def weights(self) -> bytes:
        """The weights as they stand, as safetensors."""
        state = self.network.state_dict()
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})

    def config(self) -> dict[str, Any]:
        """The config.json that `load_predictor` needs beside the weights."""
        statistics = self.corpus.statistics
        return PredictorConfig(
            architecture=self.settings.selected_model,
            shape=self._shape,
            window_frames=self.settings.window_size,
            forecast_frames=self._ahead,
            feature_names=statistics.feature_names,
            means=tuple(statistics.means.tolist()),
            standard_deviations=tuple(np.sqrt(statistics.variances).tolist()),
            sample_rate_hertz=self.corpus.sample_rate_hertz,
            hop_length_samples=self.corpus.hop_length_samples,
            training=asdict(self.settings)
            | {
                "seed": self.seed,
                "steps": self.steps,
                "validation_files": list(self.corpus.held_out),
            },
        ).to_json()

    def state_dict(self) -> dict[str, Any]:
        """All that going on from here needs, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "settings": asdict(self.settings) | {"seed": self.seed},
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave: the weights then follow bit for bit on a CPU.

        Raises SettingsMismatchError naming a setting that was another.
        """
        own = asdict(self.settings) | {"seed": self.seed}
        for name, value in state["settings"].items():
            if own.get(name) != value:
                raise SettingsMismatchError(
                    f"predictor: {name} was {value!r} in the stored training and is "
                    f"{own.get(name)!r}",
                    culprit=name,
                )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])

    def examples(self) -> dict[str, tuple[NDArray[np.float32], int]]:
        """Sound to hear: none, for descriptors are none."""
        return {}

    @property
    def _length(self) -> int:
        return self.settings.window_size + self._ahead

    def _next_starts(self) -> Tensor:
        """Where the windows of this step start; each epoch has its own order."""
        epoch, batch = divmod(self.steps, self.steps_per_epoch)
        if self._order[0] != epoch:
            drawn = np.random.default_rng((self.seed, epoch)).permutation(
                len(self._training.starts)
            )
            self._order = epoch, self._training.starts[torch.from_numpy(drawn).to(self._device)]
        size = self.settings.batch_size
        return self._order[1][batch * size : (batch + 1) * size]

    def _learning_rate(self) -> float:
        settings = self.settings
        if settings.schedule == "cosine":
            done = min(self.steps / self.total_steps, 1.0)
            return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
        if settings.schedule == "published" and settings.selected_model == ENCODER_ONLY:
            return settings.learning_rate * PUBLISHED_DECAY ** (self.steps // self.steps_per_epoch)
        return settings.learning_rate

    def _free_run(self) -> float:
        starts = self._validation.starts
        apart = max(len(starts) // FREE_RUNS, 1)
        stretch = min(self._length, FREE_RUN_FRAMES)
        recorded, _ = self._validation.at(starts[::apart][:FREE_RUNS])
        continued = self.network.continued(
            recorded[:, : self.settings.window_size],
            FREE_RUN_STRETCHES * stretch,
            self._ahead,
            "sliding",
            never_stop,
        )
        distances = _motion(continued[:, -stretch:]) - _motion(recorded[:, -stretch:])
        return float(distances.abs().mean())

    def _loss(self, windows: "_Batches", starts: Tensor, noise: float) -> Tensor:
        frames, counts = windows.at(starts)
        heard = frames + noise * torch.randn_like(frames) if noise else frames
        return self.network.loss(frames, heard, counts, self.settings.window_size)


def _motion(frames: Tensor) -> Tensor:
    """Logarithms of each feature's spread and pace in (B, F, E), averaged over the batch: (2, E).

    Logarithms first, so that a single run that stands still is not hidden by lively ones.
    """
    spread = frames.std(dim=1)
    pace = frames.diff(dim=1).abs().mean(dim=1)
    return (torch.stack((spread, pace)) + STANDSTILL).log().mean(dim=1)


class _Batches:
    """Windows on a device, gathered by where they start."""

    def __init__(self, windows: Windows, length: int, device: torch.device) -> None:
        self._frames = torch.from_numpy(windows.frames).to(device)
        self._counts = torch.from_numpy(windows.counts).to(device)
        self._offsets = torch.arange(length, device=device)
        self.starts = torch.from_numpy(windows.starts).to(device)

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, length, features) and whether they count, (B, length)."""
        places = starts.unsqueeze(1) + self._offsets
        return self._frames[places], self._counts[places]
