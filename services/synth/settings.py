"""The settings of the synth service, DEMIURGE_SYNTH_…"""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class SynthSettings(ServiceSettings):
    """Where models run, how much they may be asked for, and how many may wait or stay loaded."""

    model_config = prefix("DEMIURGE_SYNTH_")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: auto (a GPU if there is one), cpu, cuda or cuda:1.",
    )
    max_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Longest sound made or copied. MelGAN voices it in one pass: the published "
        "size takes about 60 MiB of memory a second.",
    )
    queue_capacity: int = Field(8, ge=1, description="Calls that may wait for the device.")
    loaded_models: int = Field(4, ge=2, description="Models kept loaded; the rest is reloaded.")
