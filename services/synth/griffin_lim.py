"""The vocoder that learned nothing: Griffin and Lim's (1984), fast form of Perraudin et al. (2013).

Magnitudes are found from mel bands by non-negative least squares, phases by going back and forth
between sound and spectrum. What a MelGAN gives is worth its training where it is nearer than this.
"""

from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.synth.mel import MelSettings

ITERATIONS = 32
LOUDEST_LOG_MAGNITUDE = 4.0


def griffin_lim(
    mel: NDArray[np.floating[Any]],
    settings: MelSettings,
    *,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Sound (frames * hop_length,) of log10 mel magnitudes (n_mels, frames).

    The first phases are drawn by `seed`. It takes about a third of the sound's own length. Samples
    may lie beyond [-1, 1]. Raises InvalidInputError for another number of bands, or no frames.
    """
    if mel.ndim != 2 or mel.shape[0] != settings.n_mels or not mel.shape[1]:
        raise InvalidInputError(
            f"Griffin-Lim: mel is {mel.shape}, not ({settings.n_mels}, frames)", culprit="mel"
        )
    # An untrained model may sing louder than any sound in [-1, 1] is, and beyond float32.
    audible = np.minimum(mel, LOUDEST_LOG_MAGNITUDE)
    magnitudes = librosa.feature.inverse.mel_to_stft(
        np.power(10, audible, dtype=np.float32),
        sr=settings.sample_rate_hertz,
        n_fft=settings.n_fft,
        power=1.0,
    )
    # Our frames are not centred: frame t begins `padding` samples before sample t * hop_length.
    padded = librosa.griffinlim(
        magnitudes,
        n_iter=iterations,
        hop_length=settings.hop_length,
        win_length=settings.win_length,
        n_fft=settings.n_fft,
        center=False,
        random_state=seed % 2**32,
    )
    samples: NDArray[np.float32] = padded[settings.padding :][: mel.shape[1] * settings.hop_length]
    return samples
