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
    workers: int = Field(
        2, ge=1, description="Pieces rendered at once; each keeps a cache of decoded sources."
    )
    queue_capacity: int = Field(
        16, ge=0, description="Renders that may wait; beyond, callers are told to try again later."
    )
    streams: int = Field(
        8,
        ge=1,
        description="Pieces streamed at once, each with a cache of decoded sources; beyond, "
        "callers are told to try again later.",
    )
