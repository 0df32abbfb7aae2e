"""Settings of the gateway, read from DEMIURGE_GATEWAY_… variables."""

import re
from collections.abc import Callable

from pydantic import Field

from services.runtime.addresses import is_loopback
from services.runtime.settings import ServiceSettings, prefix

LOOPBACK = "localhost:*,127.0.0.1:*,[::1]:*"
NONE = "none"


class GatewaySettings(ServiceSettings):
    """How hard to lean on the other services, whose addresses are common settings.

    Several gateways may share a store: each shows the runs of the others as they stand.
    """

    model_config = prefix("DEMIURGE_GATEWAY_")

    concurrency: int = Field(
        4, ge=1, le=1024, description="Calls under way at once in one stage of one run."
    )
    call_timeout_seconds: float = Field(
        900.0, gt=0, description="Deadline of one call to a service, waiting for its turn included."
    )
    patience_seconds: float = Field(
        120.0,
        ge=0,
        description="How long a run waits for a service or the store that is away.",
    )
    lease_seconds: float = Field(
        10.0,
        ge=1,
        description="A gateway that was not heard of for so long is gone, and its runs are taken "
        "over by the one that they are created at again.",
    )
    resume_runs: bool = Field(
        False,
        description="Take up interrupted runs without being asked: those of the last start, and "
        "of other gateways over the store that stopped.",
    )
    predictor_addresses: str = Field(
        "",
        pattern=r"^(|none|[^,\s]+:[^,\s]+(,[^,\s]+:[^,\s]+)*)$",
        description="Where a run may have its own predictor: host:port, * for any part of them, "
        "with commas between; or none. Unless set, this machine if DEMIURGE_BIND_ADDRESS is "
        "loopback, else none: whoever may create runs could otherwise have this gateway connect to "
        "what only it can reach.",
    )
    max_upload_bytes: int = Field(
        2 * 1024**3, gt=0, description="Largest file that UploadAudio takes."
    )
    uploads: int = Field(
        16, ge=1, description="Files on their way in at once; each waits on disk to be whole."
    )
    downloads: int = Field(16, ge=1, description="Files on their way out at once.")
    upload_idle_seconds: float = Field(
        60.0, gt=0, description="An upload that sends nothing for so long is ended."
    )

    def allowed_predictors(self, bind_address: str) -> Callable[[str], bool]:
        """Whether a run may have its predictor at host:port, for a gateway that listens there."""
        unless_set = LOOPBACK if is_loopback(bind_address) else NONE
        patterns = [
            re.compile(re.escape(pattern).replace(r"\*", ".*"), re.IGNORECASE)
            for pattern in (self.predictor_addresses or unless_set).split(",")
        ]
        return lambda address: any(pattern.fullmatch(address) for pattern in patterns)
