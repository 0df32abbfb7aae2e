"""Weights & Biases as a sink: offline unless told otherwise, and never something to depend on."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

logger = structlog.get_logger(__name__)


class Tracker:
    """One training run in W&B, under the id that names the model.

    WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY are read by W&B itself; where no mode is set, it
    stays offline. Whatever W&B raises is logged once, and training goes on without it.
    """

    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        self._run: Any = None
        self._guard(self._start, run_id, name, dict(config), folder)

    def _start(self, run_id: str, name: str, config: dict[str, Any], folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "demiurge"),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            id=run_id,
            name=name,
            resume="allow",
            config=config,
            dir=str(folder),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Sends figures of one step."""
        if self._run is not None:
            self._guard(self._run.log, dict(figures), step=step)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._run is not None:
            self._guard(self._run.finish, exit_code=0 if kind is None else 1)

    def _guard(self, call: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            call(*arguments, **keywords)
        except Exception as error:
            self._run = None
            logger.warning("W&B does not work, training goes on without it", error=str(error))
