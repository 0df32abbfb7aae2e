"""How much a MelGAN computes: what its speed is measured against on a chip of known speed.

Multiply-accumulates, counted from the settings.
"""

from services.synth.melgan.generator import EDGE_KERNEL, MelGanSettings

# A residual block: three taps, one for the pointwise convolution and one for the shortcut.
_BLOCK_TAPS = 5
# Three gates of input and state, in two directions.
_RECURRENT_PRODUCTS = 12


def multiplications_per_frame(settings: MelGanSettings) -> int:
    """Multiply-accumulates for one mel frame, in convolutions and recurrence; edges apart."""
    channels: int = settings.ngf * 2 ** len(settings.ratios)
    total = EDGE_KERNEL * settings.n_mels * channels
    if settings.variant == "gru":
        total += _RECURRENT_PRODUCTS * channels**2
    steps = 1
    for ratio in settings.ratios:
        half = channels // 2
        # Each step of the input is multiplied by all of 2 * ratio taps.
        total += steps * 2 * ratio * channels * half
        steps *= ratio
        if settings.excitation:
            total += settings.mel.hop_length * half
        total += steps * settings.n_residual_layers * _BLOCK_TAPS * half**2
        channels = half
    return total + steps * EDGE_KERNEL * channels


def multiplications_per_second(settings: MelGanSettings) -> float:
    """Multiply-accumulates for one second of sound."""
    mel = settings.mel
    return multiplications_per_frame(settings) * mel.sample_rate_hertz / mel.hop_length
