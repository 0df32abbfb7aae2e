"""One check of a server: a claim of the contract, and a function that looks whether it holds."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.cli.checks.subject import Subject

Look = Callable[[Subject], None]


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """`claim` is one sentence: what the contract says. `needs` are checks without which the answer
    would mean nothing; where one of them failed, this one is skipped."""

    name: str
    claim: str
    look: Look
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of one check; `asked` and `came` if it failed, `came` alone if it was skipped."""

    check: Check
    outcome: Outcome
    asked: str = ""
    came: str = ""


def check_of(look: Look, needs: Sequence[Look] = ()) -> Check:
    """The check of a function: named as it is, its docstring the claim."""
    return Check(_name(look), inspect.getdoc(look) or "", look, tuple(map(_name, needs)))


def _name(look: Look) -> str:
    return look.__name__.strip("_").replace("_", "-")
