"""Settings of the descriptor service."""

import os

from pydantic import Field

from services.runtime.settings import ServiceSettings, prefix


class DescriptorSettings(ServiceSettings):
    """What whoever runs the descriptor service may set."""

    model_config = prefix("DEMIURGE_DESCRIPTOR_")

    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Files described at once; each needs some MiB, however long it is. "
        "Unset: one per processor.",
    )
    queue_capacity: int = Field(
        64, ge=0, description="Files that may wait; beyond, callers are told to try again later."
    )
