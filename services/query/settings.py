"""Settings of the query service."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from services.runtime.settings import RuntimeSettings, ServiceSettings, load, prefix


class QuerySettings(ServiceSettings):
    """Where collections are kept."""

    model_config = prefix("DEMIURGE_QUERY_")

    folder: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda: load(RuntimeSettings).home / "query",
        description="Folder of the embedded index, which one process may have open at a time; "
        "query in DEMIURGE_HOME unless set.",
    )
    max_rows: int = Field(
        1_000_000,
        gt=0,
        description="Most matches in one answer, frames times neighbours: some 11 bytes each.",
    )
