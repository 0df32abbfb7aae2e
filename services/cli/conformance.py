"""`demiurge conformance`: does somebody else's service keep to the contract?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import number

if TYPE_CHECKING:
    from services.cli.checks.check import Result
    from services.cli.checks.subject import Limits

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

INDENT = " " * 8


@app.callback()
def conformance() -> None:
    """Hold a service to the contract, whoever wrote it."""


@app.command()
def predictor(
    address: Annotated[
        str, typer.Argument(help="host:port; the predictor's by the settings if not given.")
    ] = "",
    predictor: Annotated[
        str, typer.Option(help="Id of the predictor to look at; the first listed if not given.")
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(min=0.1, max=3600, callback=number, help="Longest wait for an answer, s."),
    ] = 60.0,
    free_within: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=3600,
            callback=number,
            help="Longest wait for a short answer after long calls were given up, s.",
        ),
    ] = 5.0,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the bearer token for a server at ADDRESS."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Hold a predictor to the contract, check by check.

    The exit code is 1 if any check fails. TLS is that of the settings. The token in
    DEMIURGE_PREDICTOR_TOKEN_FILE is sent to DEMIURGE_PREDICTOR_ADDRESS alone, that in
    DEMIURGE_TOKEN_FILE to DEMIURGE_ADDRESS: for a server elsewhere, give --token-file.
    """
    from services.cli.checks.check import Outcome
    from services.cli.checks.subject import Limits

    limits = Limits(answer_seconds=timeout, free_seconds=min(free_within, timeout))
    results = []
    for result in _results(address, predictor, limits, token_file):
        results.append(result)
        if not as_json:
            _tell(result)
    counts = {kind: sum(result.outcome is kind for result in results) for kind in Outcome}
    if as_json:
        listed = [
            {
                "name": result.check.name,
                "claim": result.check.claim,
                "outcome": result.outcome.lower(),
                "asked": result.asked,
                "came": result.came,
            }
            for result in results
        ]
        typer.echo(json.dumps({"passed": not counts[Outcome.FAILED], "checks": listed}, indent=2))
    else:
        typer.echo(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))
    if counts[Outcome.FAILED]:
        raise typer.Exit(1)


def _results(
    address: str, predictor_id: str, limits: "Limits", token_file: Path | None
) -> "Iterator[Result]":
    from services.cli.connection import silence_grpc

    silence_grpc()
    from services.cli.checks.inspection import inspected, subject_at
    from services.cli.checks.outcome import Broken
    from services.errors import ConfigurationError, UnavailableError
    from services.runtime.channels import open_blocking_channel
    from services.runtime.settings import RuntimeSettings, load

    runtime = load(RuntimeSettings)
    known = runtime.address_of("predictor")
    where = address or known
    if not where:
        raise ConfigurationError(
            "DEMIURGE_PREDICTOR_ADDRESS: is not set; give the host:port of a predictor",
            culprit="DEMIURGE_PREDICTOR_ADDRESS",
        )
    if token_file is None and where == known:
        token_file = getattr(runtime, runtime.token_field_of("predictor"))
    elsewhere = runtime.model_copy(
        update={"predictor_address": where, "predictor_token_file": token_file}
    )
    with open_blocking_channel(where, elsewhere, noun="predictor") as channel:
        try:
            subject = subject_at(channel, predictor_id, limits)
        except Broken as found:
            raise UnavailableError(f"{where}: {found.asked}: {found.came}", culprit=where) from None
        yield from inspected(subject)


def _tell(result: "Result") -> None:
    typer.echo(f"{result.outcome:<8}{result.check.name:<21}{result.check.claim}")
    if result.asked:
        typer.echo(f"{INDENT}asked: {result.asked}")
    if result.came:
        typer.echo(f"{INDENT}{'came:  ' if result.asked else ''}{result.came}")
