"""Settings of the playback service."""

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class PlaybackSettings(ServiceSettings):
    """What whoever runs the playback service may set."""

    model_config = prefix("DEMIURGE_PLAYBACK_")

    cache_mebibytes: int = Field(
        512,
        ge=1,
        description="Decoded sources that one render keeps; beyond, the least recently used are "
        "read again when they are needed again.",
    )
