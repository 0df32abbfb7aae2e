"""How a check ends other than well."""


class Broken(Exception):  # noqa: N818 - it names what was found, not what went wrong here
    """The claim does not hold: what was asked, and what came."""

    def __init__(self, asked: str, came: str) -> None:
        super().__init__(f"{asked}: {came}")
        self.asked = asked
        self.came = came


class NotApplicable(Exception):  # noqa: N818
    """Nothing to look at here; the message says why."""
