"""What the doctor tells: one thing looked at, how it is, and what to do."""

from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `mend` says what to do if it is not as it should be.

    `wrong` is the word for that; `mended` is set if it was put right just now.
    """

    subject: str
    found: str
    mend: str = ""
    wrong: str = "missing"
    mended: bool = False

    def tell(self) -> None:
        """A line, and below it what to do."""
        mark = self.wrong if self.mend else "mended" if self.mended else "ok"
        typer.echo(f"{mark:<8}{self.subject:<20}{self.found}")
        if self.mend:
            typer.echo(f"{'':<8}{'':<20}-> {self.mend}")
