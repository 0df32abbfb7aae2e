"""Settings of the query service."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from services.runtime.settings import ServiceSettings, prefix


class QuerySettings(ServiceSettings):
    """Where collections are kept."""

    model_config = prefix("DEMIURGE_QUERY_")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.demiurge/query"),
        description="Folder of the embedded index; one process may have it open at a time.",
    )
    max_rows: int = Field(
        1_000_000,
        gt=0,
        description="Most matches in one answer, frames times neighbours: some 11 bytes each.",
    )
