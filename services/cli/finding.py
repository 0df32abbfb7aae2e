"""What the doctor tells: one thing looked at, how it is, and what to do."""

from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `mend` says what to do if it is not as it should be.

    `wrong` is the word for that, and `mark` the word where nothing is to be done: "mended" for
    what was put right just now, "unknown" for what cannot be told.
    """

    subject: str
    found: str
    mend: str = ""
    wrong: str = "missing"
    mark: str = "ok"

    def tell(self) -> None:
        """A line, and below it what to do."""
        typer.echo(f"{self.wrong if self.mend else self.mark:<8}{self.subject:<20}{self.found}")
        if self.mend:
            typer.echo(f"{'':<8}{'':<20}-> {self.mend}")
