"""The `demiurge` command: one verb a file, each imported only when it is called."""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

VERBS = {
    "run": "run",
    "up": "up",
    "serve": "serve",
    "train": "train",
    "evaluate": "evaluate",
    "generate": "generate",
    "extract": "extract",
    "index": "index",
    "predict": "predict",
    "match": "match",
    "render": "render",
    "import": "importing",
    "export": "exporting",
    "models": "models",
    "runs": "runs",
    "doctor": "doctor",
    "health": "health",
    "conformance": "conformance",
}


# What typer makes of Ctrl-C.
INTERRUPTED = 130


class Verbs(TyperGroup):
    """Commands by name, each in services.cli.<module> as `app`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base's signature
        """The verbs, in the order in which they are met."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base's signature
        """Imports the verb and nothing else; None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"services.cli.{VERBS[cmd_name]}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


def underscores_too(name: str) -> str:
    """`--audio_db_dir` is `--audio-db-dir`: the published scripts used underscores."""
    return name.replace("_", "-")


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": underscores_too,
    },
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def demiurge() -> None:
    """Turn recordings into new music.

    Start with:  demiurge run --recorded FOLDER --prediction FOLDER
    """


def main() -> None:
    """Runs the command; errors become one line that says what to do, and exit code 1."""
    from services.errors import DemiurgeError

    try:
        app()
    except DemiurgeError as error:
        typer.echo(f"demiurge: {error.message}", err=True)
        sys.exit(1)
    except OSError as error:
        # A folder that cannot be written, a full disk.
        typer.echo(f"demiurge: {error.filename or 'system'}: {error.strerror}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo("demiurge: stopped; what was finished is kept", err=True)
        raise


if __name__ == "__main__":
    main()
