"""Settings of the gateway, read from DEMIURGE_GATEWAY_… variables."""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class GatewaySettings(ServiceSettings):
    """How hard to lean on the other services, whose addresses are common settings.

    One gateway per store for now: a run is known as it goes only to the gateway that it was created
    at, and two of them would both work at what looks interrupted to them.
    """

    model_config = prefix("DEMIURGE_GATEWAY_")

    concurrency: int = Field(
        4, ge=1, le=1024, description="Calls under way at once in one stage of one run."
    )
    call_timeout_seconds: float = Field(
        900.0, gt=0, description="Deadline of one call to a service, retries included."
    )
    max_upload_bytes: int = Field(
        2 * 1024**3, gt=0, description="Largest file that UploadAudio takes."
    )
