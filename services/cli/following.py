"""Runs as a person follows them: started, watched, stopped by Ctrl-C, and brought home."""

from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.progress import Progress
from services.cli.transfer import download
from services.errors import CancelledError, DemiurgeError

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec


def follow(client: Client, spec: "RunSpec", progress: Progress) -> "Run":
    """Creates the run and shows its stages until it succeeds; Ctrl-C cancels it.

    Raises DemiurgeError with the run's own words if it fails.
    """
    from demiurge.gateway.v1.gateway_service_pb2 import (
        CancelRunRequest,
        CreateRunRequest,
        State,
        WatchRunRequest,
    )

    run = client.pipeline.CreateRun(CreateRunRequest(spec=spec)).run
    progress.say(f"run {run.id}")
    try:
        for message in client.pipeline.WatchRun(WatchRunRequest(run_id=run.id)):
            run = message.run
            show(run, progress)
    except KeyboardInterrupt:
        client.pipeline.CancelRun(CancelRunRequest(run_id=run.id))
        raise
    for item in run.skipped:
        progress.say(f"left out: {item.reason}")
    if run.state == State.STATE_CANCELLED:
        raise CancelledError(f"run {run.id} was cancelled; the same call again resumes it")
    if run.state != State.STATE_SUCCEEDED:
        raise DemiurgeError(f"run {run.id} failed: {run.failure.message}", culprit=run.id)
    return run


def show(run: "Run", progress: Progress) -> None:
    """Brings the bars up to date."""
    for stage in run.stages:
        if stage.total_items:
            progress.update(stage.name, stage.completed_items, stage.total_items)


def fetch(client: Client, run: "Run", folder: Path, progress: Progress) -> None:
    """Brings the piece, its edit list and its spectrogram into `folder`."""
    result = run.result
    for reference in (result.audio, result.edit_list, result.spectrogram):
        download(client, reference, folder / reference.key.rpartition("/")[2])
    piece = folder / result.audio.key.rpartition("/")[2]
    seconds = result.sample_count / result.sample_rate_hertz
    progress.say(
        f"{piece}: {seconds:.1f} s from {result.source_count} sounds, peak {result.peak:.2f}; "
        "beside it where each moment came from (edit_list.json) and a picture (spectrogram.png)"
    )
