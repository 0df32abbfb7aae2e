"""The settings of the predictor service, DEMIURGE_PREDICTOR_…"""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class PredictorSettings(ServiceSettings):
    """Where models run, and how much may be asked of them."""

    model_config = prefix("DEMIURGE_PREDICTOR_")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: auto (a GPU if there is one), cpu, cuda or cuda:1.",
    )
    queue_capacity: int = Field(8, ge=1, description="Calls that may wait for the device.")
    loaded_megabytes: int = Field(
        1000,
        ge=1,
        description="Models kept loaded, in megabytes of weights; the one used longest ago goes "
        "first, and is loaded again when it is asked for. A larger one is served alone. What "
        "models need while they are at work comes on top.",
    )
    max_steps: int = Field(
        20_000, ge=1, le=100_000, description="Most frames that one request may ask for."
    )
    plugins: str = Field(
        "all",
        pattern=r"^[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*$",
        description="Predictors of other installed packages that are served: all, none, or their "
        "names with commas between. They run with all rights of the service.",
    )
