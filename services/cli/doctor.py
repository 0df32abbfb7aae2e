"""`demiurge doctor`: what is missing on this machine, and how to mend it."""

import typer

app = typer.Typer(add_completion=False)


@app.command()
def doctor(deep_check: bool = typer.Option(False, help="x")) -> None:
    """Say what is missing here, and how to mend it."""
    typer.echo(f"ok {deep_check}")
