"""`demiurge runs`: the pieces made so far, and those being made; and how trainings went."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run

    from services.runtime.object_store.port import ObjectStore

RESUMES = "run it again, and it goes on from what it had finished"
THEN = {
    "pending": "wait for it",
    "running": "wait for it",
    "interrupted": RESUMES,
    "cancelled": RESUMES,
}

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)

RunId = Annotated[str, typer.Argument(help="Id of the run.")]


@app.callback()
def runs(context: typer.Context) -> None:
    """List, show, cancel, delete and fetch runs; plot trainings.

    Without a verb, runs are listed, newest first; `demiurge runs plot` lists trainings.
    """
    if context.invoked_subcommand is not None:
        return
    from demiurge.gateway.v1.gateway_service_pb2 import ListRunsRequest

    from services.cli.connection import connect
    from services.cli.listing import columns

    rows = []
    request = ListRunsRequest()
    with connect("gateway", lasting=False) as client:
        while True:
            page = client.pipeline.ListRuns(request)
            for run in page.runs:
                length = run.spec.prediction.frame_count
                created = run.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
                database = run.spec.prediction.database
                rows.append((run.id, _state(run), created, database, f"{length} frames"))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if rows:
        typer.echo(columns(("run", "state", "created", "continues", "length"), rows))
    else:
        typer.echo("no runs yet: `demiurge run` makes one")


@app.command()
def show(run_id: RunId) -> None:
    """Show one run as JSON: its request, stages, left-out files and result."""
    from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest
    from google.protobuf.json_format import MessageToJson

    from services.cli.connection import connect

    with connect("gateway", lasting=False) as client:
        run = client.pipeline.GetRun(GetRunRequest(run_id=run_id)).run
    typer.echo(MessageToJson(run, preserving_proto_field_name=True))


@app.command()
def cancel(run_id: RunId) -> None:
    """Stop a run; the same request resumes it."""
    from demiurge.gateway.v1.gateway_service_pb2 import CancelRunRequest

    from services.cli.connection import connect

    with connect("gateway", lasting=False) as client:
        run = client.pipeline.CancelRun(CancelRunRequest(run_id=run_id)).run
    typer.echo(f"{run.id}: {_state(run)}")


@app.command()
def delete(run_id: RunId) -> None:
    """Remove a run and its piece; recordings, generated sounds and collections stay."""
    from demiurge.gateway.v1.gateway_service_pb2 import DeleteRunRequest

    from services.cli.connection import connect

    with connect("gateway", lasting=False) as client:
        client.pipeline.DeleteRun(DeleteRunRequest(run_id=run_id))
    typer.echo(f"{run_id}: deleted")


@app.command()
def fetch(
    run_id: RunId,
    out: Annotated[Path, typer.Option(help="Folder that the piece is put into.")] = Path("piece"),
) -> None:
    """Bring the piece of a run that succeeded, its edit list and its spectrogram."""
    from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest

    from services.cli.beforehand import check_output
    from services.cli.connection import connect
    from services.cli.following import fetch as fetch_piece
    from services.cli.progress import Progress
    from services.errors import NotReadyError

    check_output("--out", out)
    with Progress() as progress, connect("gateway", lasting=False) as client:
        run = client.pipeline.GetRun(GetRunRequest(run_id=run_id)).run
        if not run.HasField("result"):
            state = _state(run)
            verb = "has" if state == "failed" else "is"
            then = THEN.get(state, f"`demiurge runs show {run_id}` says more")
            raise NotReadyError(f"run {run_id} {verb} {state}, and has no piece: {then}")
        fetch_piece(client, run, out, progress)


@app.command()
def plot(
    model_id: Annotated[
        str, typer.Argument(help="Id of the model that was, or is being, trained; else all.")
    ] = "",
    family: Annotated[
        str, typer.Option(help="melgan, unagan or predictor, where several have the id.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="PNG file that the curves are drawn into as well.")
    ] = None,
) -> None:
    """Show how a training goes, or went: its losses and figures by step, from its own log.

    Without an id, the trainings that have a log are listed.
    """
    from services.cli.curves import png, table
    from services.cli.files import write_whole
    from services.cli.training.journal import find_journal, read_journal
    from services.errors import InvalidInputError
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    store = open_store(load(RuntimeSettings))
    if not model_id:
        typer.echo(_trainings(store))
        return
    if out and out.suffix.lower() != ".png":
        raise InvalidInputError(f"--out: {out} should end in .png", culprit="--out")
    found = find_journal(store, model_id, family)
    entries = read_journal(store, found, model_id)
    if not entries:
        typer.echo(f"{found} {model_id}: nothing is logged yet")
        return
    last = entries[-1]
    title = f"{found} {model_id}: step {last.step}, {last.time:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"{title}\n\n{table(entries, sys.stdout.encoding)}")
    if out:
        write_whole(out, png(entries, title))
        typer.echo(f"\n{out}")


def _trainings(store: "ObjectStore") -> str:
    """Each training that has a log, the latest first."""
    from services.cli.listing import columns
    from services.cli.training.journal import journals, read_journal
    from services.errors import CorruptObjectError

    rows = []
    for family, model_id in journals(store):
        try:
            entries = read_journal(store, family, model_id)
        except CorruptObjectError:
            rows.append((family, model_id, "", "damaged"))
            continue
        if entries:
            last = entries[-1]
            rows.append((family, model_id, str(last.step), f"{last.time:%Y-%m-%d %H:%M}"))
    if not rows:
        return "no training has a log yet: `demiurge train` makes one"
    rows.sort(key=lambda row: row[-1], reverse=True)
    return columns(("family", "id", "step", "logged"), rows)


def _state(run: "Run") -> str:
    """The state in a word; an interrupted run waits to be taken up, and has not failed."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    if run.failure.reason == "INTERRUPTED":
        return "interrupted"
    return State.Name(run.state).removeprefix("STATE_").lower()
