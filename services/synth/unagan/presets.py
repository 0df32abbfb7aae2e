"""How UNAGAN is trained: the settings of training, and the named sets of them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from services.errors import InvalidInputError, NotFoundError
from services.synth.mel import MelSettings
from services.synth.unagan.generator import UnaganSettings


@dataclass(frozen=True)
class UnaganTraining:
    """What training does; the defaults are those of the published script."""

    networks: UnaganSettings = field(default_factory=UnaganSettings)
    """What the networks look like."""
    cycle: bool = True
    """Whether an encoder closes the cycles; the hierarchical variant only."""
    segment_seconds: float = 10.0
    """Length of the crops; rounded up to whole columns of noise."""
    batch_size: int = 5
    """Crops a step."""
    learning_rate: float = 1e-4
    """Of Adam, for all networks."""
    gamma: float = 1.0
    """BEGAN's wanted ratio of generated to real redrawing loss."""
    lambda_k: float = 0.01
    """How fast BEGAN's k follows."""
    init_k: float = 0.0
    """BEGAN's first k."""
    lambda_cycle: float = 1.0
    """Weight of both cycle losses."""
    max_gradient_norm: float = 3.0
    """Gradients of each network are clipped to this norm."""
    validation_share: float = 0.1
    """Share of source files kept back."""
    validation_figure: str = "convergence"
    """The figure of `validate` by which the best step is chosen: lower is better."""

    def __post_init__(self) -> None:
        if self.cycle and self.networks.variant != "hierarchical":
            raise InvalidInputError(
                "cycle losses need the hierarchical variant: set cycle to false", culprit="cycle"
            )
        for name in ("segment_seconds", "batch_size", "learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name} must be positive", culprit=name)

    @property
    def segment_frames(self) -> int:
        """Mel frames of a crop: whole columns of noise, at least one."""
        mel, columns = self.networks.mel, self.networks.frames_per_z
        frames = self.segment_seconds * mel.sample_rate_hertz / mel.hop_length
        return max(1, -(-round(frames) // columns)) * columns

    def to_config(self) -> dict[str, Any]:
        """The settings of training, without those of the networks, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "networks"}


def preset(name: str, mel: MelSettings | None = None) -> UnaganTraining:
    """The training of that name, for sound of those mel settings (44.1 kHz if none are given).

    Raises NotFoundError naming the presets there are.
    """
    if name not in PRESETS:
        raise NotFoundError(
            f"no UNAGAN preset {name!r}; there are {', '.join(PRESETS)}", culprit=name
        )
    return PRESETS[name](mel or MelSettings())


def _published_script(mel: MelSettings) -> UnaganTraining:
    return UnaganTraining(networks=UnaganSettings(mel=mel))


def _published_notebook(mel: MelSettings) -> UnaganTraining:
    return UnaganTraining(networks=UnaganSettings(mel=mel), learning_rate=1e-3, batch_size=10)


def _demo_cpu(mel: MelSettings) -> UnaganTraining:
    """Learns within two minutes on two CPU cores: narrow, and short crops, since the recurrent
    blocks take their time per frame, hardly per item. In so few steps BEGAN's measure says more
    about the discriminator than about the sound.
    """
    return UnaganTraining(
        networks=UnaganSettings(middle_dim=64, mel=mel),
        segment_seconds=1.0,
        batch_size=8,
        learning_rate=1e-3,
        validation_figure="mel_distance",
    )


PRESETS: Mapping[str, Callable[[MelSettings], UnaganTraining]] = {
    "published-script": _published_script,
    "published-notebook": _published_notebook,
    "demo-cpu": _demo_cpu,
}
