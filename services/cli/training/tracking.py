"""Weights & Biases as a sink: offline unless told otherwise, and never something to depend on."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.cli.training.journal import Entry
from services.runtime.model_store import ModelStore, ModelVersion

# W&B's own patience is a minute and a half at the start and has no end at the end.
SECONDS_TO_START = 20.0
SECONDS_TO_FINISH = 60.0
# An artifact may take a minute, and as long as its bytes do on a slow line.
SLOW_BYTES_PER_SECOND = 1 << 20

ARTIFACT_TYPE = "model"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"


class Tracker:
    """One training run in W&B, under the id that names the model.

    WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY are read by W&B itself; where no mode is set, it
    stays offline. What cannot be sent is kept below `folder`, for `wandb sync`. Whatever W&B
    raises is told to `warn` once, in one line, and training goes on without it.

    A training that is resumed goes on under its id. Offline, the folders of its earlier starts are
    renamed, so that `wandb sync` finds each step once; their sounds stay in them.
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
        self._begun: Any = None
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
        # Artifacts are staged there; the home of who trains need not be writable.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder))
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        if mode == "offline":
            for former in folder.glob(f"wandb/offline-run-*-{run_id}"):
                former.rename(former.with_name(f"former-{former.name}"))
        self._run = self._begun = wandb.init(
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
                finish_timeout_raises=True,
            ),
        )

    def _forget(self) -> None:
        import wandb

        # Its background process holds the id of a run that could not start, and one that has died
        # would be complained of when ours ends.
        wandb.teardown(exit_code=1)

    def catch_up(self, past: Sequence[Entry]) -> None:
        """Sends what a resumed training logged before, so far as W&B has not got it.

        A process that was killed had not given all of it away; offline, W&B begins anew.
        """
        for entry in past:
            self.log(entry.step, entry.figures)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Sends figures of one step, as plain numbers; a step that W&B has already is left out."""
        self._guard(self._log, step, figures)

    @property
    def hears(self) -> bool:
        """Whether sounds are kept: not where W&B is disabled or has failed."""
        return self._run is not None and not self._run.disabled

    def listen(self, step: int, examples: Mapping[str, tuple[NDArray[np.float32], int]]) -> None:
        """Sends sounds (mono samples, rate in hertz) by name, each with a spectrogram of it."""
        self._guard(self._listen, step, examples)

    def publish(self, models: ModelStore, version: ModelVersion) -> None:
        """Sends a stored model as an artifact, where W&B is online: weights, config and card.

        It waits until they have arrived, for a minute and a second per MiB at most.
        """
        self._guard(self._publish, models, version)

    def _log(self, step: int, row: Mapping[str, Any]) -> None:
        if self._run is not None and step >= self._run.starting_step:
            self._run.log(dict(row), step=step)

    def _listen(self, step: int, examples: Mapping[str, tuple[NDArray[np.float32], int]]) -> None:
        if self._run is None or not examples:
            return
        import wandb
        from PIL import Image

        from services.playback.spectrogram import Spectrogram

        media: dict[str, Any] = {}
        for name, (heard, rate) in examples.items():
            # A generator that has come apart gives numbers that no player takes.
            samples = np.nan_to_num(heard, posinf=1, neginf=-1).clip(-1, 1)
            spectrogram = Spectrogram(rate, len(samples))
            spectrogram.add(samples[:, None])
            media[f"audio/{name}"] = wandb.Audio(samples, sample_rate=rate)
            with Image.open(io.BytesIO(spectrogram.png())) as picture:
                media[f"spectrogram/{name}"] = wandb.Image(picture)
        self._log(step, media)

    def _publish(self, models: ModelStore, version: ModelVersion) -> None:
        if self._run is None or self._run.offline:
            return
        import wandb

        artifact = wandb.Artifact(
            f"{version.family}-{version.id}",
            ARTIFACT_TYPE,
            # In one key: W&B takes a hundred, and a predictor has more figures.
            metadata={
                "family": version.family,
                "step": version.step,
                "figures": dict(version.figures),
            },
        )
        files = {
            WEIGHTS: models.read_weights(version),
            CONFIG: orjson.dumps(version.config, option=orjson.OPT_INDENT_2),
            CARD: models.read_card(version).encode(),
        }
        for name, content in files.items():
            with artifact.new_file(name, mode="wb") as file:
                file.write(content)
        seconds = SECONDS_TO_FINISH + version.size_bytes / SLOW_BYTES_PER_SECOND
        self._run.log_artifact(artifact).wait(timeout=round(seconds))

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        code = 0 if kind is None else 1
        if self._run is not None:
            self._guard(self._run.finish, exit_code=code)
        elif self._begun is not None:
            # What it took before it failed can still be kept.
            with suppress(Exception):
                self._begun.finish(exit_code=code)
            with suppress(Exception):
                self._forget()

    def _guard(self, call: Callable[..., object], *arguments: Any, **keywords: Any) -> bool:
        try:
            call(*arguments, **keywords)
        except Exception as error:
            self._run = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._warn(f"W&B does not work, training goes on without it: {reason}{self._kept}")
            return False
        return True
