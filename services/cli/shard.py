"""One of N shares of bulk work: what each of N processes does, so that together they do all."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import typer

from services.cli.options import MAX_FILES

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Number `index` of `count`, from 0; all there is, unless it is said."""

    index: int = 0
    count: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th: of what all shards list alike."""
        return items[self.index :: self.count]

    def holds(self, name: str) -> bool:
        """Whether what bears this name is this shard's, whatever else is found beside it."""
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index


WHOLE = Shard()


def shard(text: str) -> Shard:
    """I/N as a shard; for options' parsers."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    index, count = map(int, found.groups()) if found else (0, 0)
    if not index < count <= MAX_FILES:
        raise typer.BadParameter(
            f"{text} is not I/N, number I of N shards, counted from 0: 0/4 to 3/4."
        )
    return Shard(index, count)
