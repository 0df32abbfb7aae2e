"""Weights & Biases as a sink: offline unless told otherwise, and never something to depend on."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

# W&B's own patience is a minute and a half at the start and has no end at the end.
SECONDS_TO_START = 20.0
SECONDS_TO_FINISH = 60.0


class Tracker:
    """One training run in W&B, under the id that names the model.

    WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY are read by W&B itself; where no mode is set, it
    stays offline. What cannot be sent is kept below `folder`, for `wandb sync`. Whatever W&B
    raises is told to `warn` once, in one line, and training goes on without it.
    """

    def __init__(
        self,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        folder: Path,
        warn: Callable[[str], None],
    ) -> None:
        self._run: Any = None
        self._warn = warn
        self._kept = ""
        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        if mode == "online":
            self._kept = (
                f"; its course is kept below {folder}, and `wandb sync` sends it from there"
            )
        started = self._guard(self._start, mode, run_id, name, dict(config), folder)
        if not started and mode == "online":
            self._kept = ""
            self._guard(self._forget)
            self._guard(self._start, "offline", run_id, name, dict(config), folder)

    def _start(
        self, mode: Any, run_id: str, name: str, config: dict[str, Any], folder: Path
    ) -> None:
        # What W&B tells its makers would hold up the end by half a minute where nobody answers,
        # and it says more than the one line that is ours.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "demiurge",
            mode=mode,
            id=run_id,
            name=name,
            resume="allow" if mode == "online" else None,
            config=config,
            dir=str(folder),
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=SECONDS_TO_START,
                login_timeout=SECONDS_TO_START,
                finish_timeout=SECONDS_TO_FINISH,
            ),
        )

    def _forget(self) -> None:
        import wandb

        # Its background process holds the id of the run that could not start.
        wandb.teardown(exit_code=1)

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

    def _guard(self, call: Callable[..., object], *arguments: Any, **keywords: Any) -> bool:
        try:
            call(*arguments, **keywords)
        except Exception as error:
            self._run = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._warn(f"W&B does not work, training goes on without it: {reason}{self._kept}")
            return False
        return True
