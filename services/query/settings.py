"""Settings of the query service."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from services.errors import ConfigurationError
from services.runtime.addresses import is_loopback
from services.runtime.credential_files import CredentialFile
from services.runtime.settings import (
    RuntimeSettings,
    ServiceSettings,
    load,
    prefix,
)


class QuerySettings(ServiceSettings):
    """Where collections are kept."""

    model_config = prefix("DEMIURGE_QUERY_")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda: load(RuntimeSettings).home / "query",
        description="Folder of the embedded index, which one process may have open at a time; "
        "query in DEMIURGE_HOME unless set.",
    )
    url: str = Field(
        "",
        pattern=r"^(https?://[^/?#@]+/?)?$",
        description="http://host:port or https://host:port of a Qdrant server, which several "
        "replicas may share; empty means the embedded index.",
    )
    grpc_port: int = Field(
        6334, gt=0, le=65535, description="Port on which that server speaks gRPC."
    )
    api_key_file: Path | None = Field(
        None, description="File that holds the key which that server asks for."
    )
    ca: Path | None = Field(
        None, description="PEM authorities that the server's certificate is of; else the system's."
    )
    timeout_seconds: int = Field(
        30,
        gt=0,
        description="Longest wait for one answer of the server, which then counts as away.",
    )
    max_rows: int = Field(
        1_000_000,
        gt=0,
        description="Most matches in one answer, frames times neighbours: some 11 bytes each.",
    )

    def api_key(self, *, allow_unprotected: bool) -> str:
        """The key for the Qdrant server; "" where none is set.

        Raises ConfigurationError, naming the variable, for a file that is missing or not one line
        of ASCII, and for a key that would go over a network unprotected without permission.
        """
        if not self.api_key_file:
            return ""
        file = CredentialFile(QuerySettings, "api_key_file", self.api_key_file)
        key = file.content().decode(errors="replace").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise file.wrong(f"{file.path} does not hold one line of ASCII")
        parts = urlsplit(self.url)
        local = is_loopback(parts.hostname or "")
        if parts.scheme == "http" and not local and not allow_unprotected:
            raise ConfigurationError(
                f"DEMIURGE_QUERY_URL: the key would go to {self.url} unprotected; use https://",
                culprit="DEMIURGE_QUERY_URL",
            )
        return key

    def authorities(self) -> bytes | None:
        """PEM certificates to trust the Qdrant server by; None for the system's.

        Raises ConfigurationError, naming the variable, for a file that is missing or not PEM.
        """
        return CredentialFile(QuerySettings, "ca", self.ca).pem() if self.ca else None
