"""Runs as a person follows them: started, watched, stopped by Ctrl-C, and brought home."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.progress import Progress
from services.cli.transfer import download
from services.errors import CancelledError, DemiurgeError, UnavailableError

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

# A gateway that starts anew is back within this.
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 1.0
# Of a run within one stage; whatever ends the gateway each time, then, is this run.
INTERRUPTIONS = 5
CANCEL_SECONDS = 10.0


def follow(client: Client, spec: "RunSpec", progress: Progress) -> "Run":
    """Creates the run and shows its stages until it succeeds; Ctrl-C cancels it.

    Raises DemiurgeError with the run's own words if it fails.
    """
    import grpc
    from demiurge.gateway.v1.gateway_service_pb2 import CancelRunRequest, CreateRunRequest, State

    run = created = client.pipeline.CreateRun(CreateRunRequest(spec=spec)).run
    progress.say(f"run {run.id}")
    try:
        for run in states(client, spec, created, progress):
            show(run, progress)
    except KeyboardInterrupt:
        # Who stops wants to leave, even if the gateway hangs.
        with suppress(grpc.RpcError, DemiurgeError):
            client.pipeline.CancelRun(CancelRunRequest(run_id=run.id), timeout=CANCEL_SECONDS)
        raise
    for item in run.skipped:
        progress.say(f"left out: {item.reason}")
    if run.state == State.STATE_CANCELLED:
        raise CancelledError(f"run {run.id} was cancelled; the same call again resumes it")
    if run.state != State.STATE_SUCCEEDED:
        raise DemiurgeError(f"run {run.id} failed: {run.failure.message}", culprit=run.id)
    return run


def states(client: Client, spec: "RunSpec", run: "Run", progress: Progress) -> "Iterator[Run]":
    """The run as it goes, and last as it ended, though the gateway be away for a while meanwhile.

    A run that the gateway left interrupted is created again, ever later. Raises DemiurgeError, with
    the run's own words, if that happens too often before another stage is finished.
    """
    from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest, WatchRunRequest

    from services.runtime.status import remote_errors

    heard, waiting = time.monotonic(), False
    interruptions, furthest = 0, _finished(run)
    while True:
        try:
            with remote_errors():
                if _interrupted(run):
                    run = client.pipeline.CreateRun(CreateRunRequest(spec=spec)).run
                for message in client.pipeline.WatchRun(WatchRunRequest(run_id=run.id)):
                    run = message.run
                    if not _interrupted(run):
                        heard, waiting = time.monotonic(), False
                        if _finished(run) > furthest:
                            interruptions, furthest = 0, _finished(run)
                        yield run
            if not _interrupted(run):
                return
            interruptions += 1
            if interruptions == INTERRUPTIONS:
                raise DemiurgeError(
                    f"run {run.id} was interrupted {interruptions} times without finishing another "
                    f"stage; see the gateway's log for why: {run.failure.message}",
                    culprit=run.id,
                )
        except UnavailableError as error:
            away = time.monotonic() - heard
            if away > PATIENCE_SECONDS:
                raise UnavailableError(
                    f"the gateway was away for {away:.0f} s: {error.message}; see that it runs, "
                    f"and the same call again goes on with run {run.id}",
                    culprit=error.culprit,
                ) from error
            if not waiting:
                progress.say(f"waiting for the gateway: {error.message}")
            waiting = True
        time.sleep(PAUSE_SECONDS * 2**interruptions)


def _interrupted(run: "Run") -> bool:
    return run.failure.reason == "INTERRUPTED"


def _finished(run: "Run") -> int:
    from demiurge.gateway.v1.gateway_service_pb2 import State

    return sum(stage.state == State.STATE_SUCCEEDED for stage in run.stages)


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
