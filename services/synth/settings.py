"""The settings of the synth service, DEMIURGE_SYNTH_…"""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class SynthSettings(ServiceSettings):
    """Where models run, and how many may wait or stay loaded."""

    model_config = prefix("DEMIURGE_SYNTH_")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: auto (a GPU if there is one), cpu, cuda or cuda:1.",
    )
    queue_capacity: int = Field(8, ge=1, description="Calls that may wait for the device.")
    loaded_models: int = Field(4, ge=2, description="Models kept loaded; the rest is reloaded.")
