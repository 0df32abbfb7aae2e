"""Settings of the gateway, read from DEMIURGE_GATEWAY_… variables."""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class GatewaySettings(ServiceSettings):
    """Where the other services are, and how hard to lean on them."""

    model_config = prefix("DEMIURGE_GATEWAY_")

    synth_address: str = Field("127.0.0.1:50051", description="Address of the synth service.")
    descriptor_address: str = Field(
        "127.0.0.1:50052", description="Address of the descriptor service."
    )
    predictor_address: str = Field(
        "127.0.0.1:50053",
        description="Address of the predictor: ours, or any server of demiurge.predictor.v1.",
    )
    query_address: str = Field("127.0.0.1:50054", description="Address of the query service.")
    playback_address: str = Field("127.0.0.1:50055", description="Address of the playback service.")
    concurrency: int = Field(
        4, ge=1, le=1024, description="Calls under way at once in one stage of one run."
    )
    call_timeout_seconds: float = Field(
        900.0, gt=0, description="Deadline of one call to a service, retries included."
    )
    max_upload_bytes: int = Field(
        2 * 1024**3, gt=0, description="Largest file that UploadAudio takes."
    )
