"""The settings of the synth service, DEMIURGE_SYNTH_…"""

from typing import Literal

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix

Precision = Literal["float32", "bf16"]


class SynthSettings(ServiceSettings):
    """Where models run, how much they may be asked for, and how many may wait or stay loaded."""

    model_config = prefix("DEMIURGE_SYNTH_")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: auto (a GPU if there is one), cpu, cuda or cuda:1.",
    )
    precision: Precision = Field(
        "float32",
        description="What MelGAN's convolutions are computed in: float32; or bf16, coarser, and "
        "meant for a GPU that is made for it. UNAGAN and recurrences stay in float32.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Whether MelGAN's chunks are replayed as CUDA graphs. Without effect on a CPU.",
    )
    max_seconds: float = Field(
        600.0,
        gt=0,
        le=3600,
        description="Longest sound made or copied, and sum of a batch. Models of published size "
        "take 1.5 GiB of memory for ten minutes, and 80 MiB for each further one.",
    )
    queue_capacity: int = Field(8, ge=1, description="Calls that may wait for the device.")
    loaded_models: int = Field(4, ge=2, description="Models kept loaded; the rest is reloaded.")
