"""The log-mel spectrogram that MelGAN listens to (Kumar et al., 2019, arXiv:1910.06711)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import librosa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.errors import InvalidInputError, SettingsMismatchError

QUIETEST_MAGNITUDE = 1e-5


@dataclass(frozen=True)
class MelSettings:
    """How sound becomes a mel spectrogram: Slaney bands from 0 Hz to Nyquist, log10 magnitude.

    Two models fit together only if these settings are equal. Raises SettingsMismatchError where
    no spectrogram of exactly one frame a hop can come of them.
    """

    sample_rate_hertz: int = 44100
    """Rate of the sound."""
    n_fft: int = 1024
    """Length of the FFT in samples."""
    hop_length: int = 256
    """Samples from one frame to the next."""
    win_length: int = 1024
    """Length of the Hann window in samples."""
    n_mels: int = 80
    """Bands."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise SettingsMismatchError(f"mel: {field.name} must be at least 1")
        if self.win_length > self.n_fft:
            raise SettingsMismatchError(
                f"mel: win_length {self.win_length} is longer than n_fft {self.n_fft}"
            )
        if self.hop_length > self.n_fft or (self.n_fft - self.hop_length) % 2:
            raise SettingsMismatchError(
                f"mel: n_fft {self.n_fft} less hop_length {self.hop_length} must be even and not "
                "negative, for it is what both ends are padded with"
            )

    @property
    def padding(self) -> int:
        """Samples reflected at either end, so that n hops of sound give exactly n frames."""
        return (self.n_fft - self.hop_length) // 2

    @property
    def shortest_samples(self) -> int:
        """Length of the shortest sound that can be reflected and holds a whole frame."""
        return max(self.padding + 1, self.hop_length)

    def to_config(self) -> dict[str, Any]:
        """These settings as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "MelSettings":
        """What `to_config` wrote; raises SettingsMismatchError naming what is amiss."""
        names = [field.name for field in fields(cls)]
        absent = [name for name in names if name not in config]
        unknown = [name for name in config if name not in names]
        if absent or unknown:
            raise SettingsMismatchError(
                f"mel settings: absent {absent or 'none'}, not known {unknown or 'none'}"
            )
        return cls(**{name: int(config[name]) for name in names})


class MelSpectrogram(nn.Module):
    """Audio to log-mel spectrogram; differentiable, silence included."""

    window: Tensor
    bands: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings
        bands = librosa.filters.mel(
            sr=settings.sample_rate_hertz, n_fft=settings.n_fft, n_mels=settings.n_mels
        )
        # Both follow from the settings, so they have no place among stored weights.
        self.register_buffer("window", torch.hann_window(settings.win_length), persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Spectrogram of `audio`.

        Args:
            audio: (B, 1, samples) float32 in [-1, 1].

        Returns:
            (B, n_mels, samples // hop_length) float32: log10 of the mel magnitude, at least -5.

        Raises:
            InvalidInputError: another shape, or fewer than `settings.shortest_samples`.
        """
        settings = self.settings
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise InvalidInputError(f"mel: audio is {tuple(audio.shape)}, not (batch, 1, samples)")
        if audio.shape[2] < settings.shortest_samples:
            raise InvalidInputError(
                f"mel: a sound of {audio.shape[2]} samples is too short: at least "
                f"{settings.shortest_samples} are needed"
            )
        padded = F.pad(audio, (settings.padding, settings.padding), mode="reflect").squeeze(1)
        spectrum = torch.stft(
            padded,
            settings.n_fft,
            settings.hop_length,
            settings.win_length,
            self.window,
            center=False,
            return_complex=True,
        )
        # abs() of a complex tensor has gradient 0 at 0, where the root of a sum of squares has NaN.
        magnitudes = torch.matmul(self.bands, spectrum.abs())
        return torch.log10(magnitudes.clamp(min=QUIETEST_MAGNITUDE))
