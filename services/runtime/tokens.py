"""Bearer tokens: a file of them, one a line, any of which opens a server until it expires.

    Zm9yIHRoZSBsYWI
    b2xkIG9uZQ 2026-12-01T00:00:00Z

A client sends the first that has not expired. The file is read anew when it changes, so that a
token is replaced without a restart: write the new one below the old one, then, when every client
has it, above, then alone.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.errors import ConfigurationError, UnauthenticatedError
from services.runtime.credential_files import CredentialFile
from services.runtime.settings import RuntimeSettings

AUTHORIZATION_KEY = "authorization"
_SCHEME = "Bearer "


@dataclass(frozen=True, repr=False)
class _Token:
    value: str
    expiry: datetime | None

    def is_valid(self, now: datetime) -> bool:
        return self.expiry is None or now < self.expiry


class Tokens:
    """The tokens of one file, as it stands."""

    def __init__(
        self, field: str, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`field` of the settings names the file.

        Raises ConfigurationError, naming the variable, for a file that is missing, empty or has
        lines that are not a token of printable ASCII and, maybe, a time.
        """
        self._file = CredentialFile(RuntimeSettings, field, path)
        self._now = now
        self._tokens = self._read()

    def current(self) -> str:
        """The token to send; UnauthenticatedError if all have expired."""
        self._renew()
        now = self._now()
        for token in self._tokens:
            if token.is_valid(now):
                return token.value
        raise UnauthenticatedError(
            f"every token in {self._file.path} has expired: write a new one into it",
            culprit=self._file.variable,
        )

    def check(self, authorization: str) -> None:
        """Raises UnauthenticatedError unless the header carries one of the tokens.

        Takes as long whichever it is, or none. The reason tells a caller nothing of other tokens.
        """
        self._renew()
        if not authorization:
            raise UnauthenticatedError("a bearer token is needed; set DEMIURGE_TOKEN_FILE")
        now, given = self._now(), authorization.encode()
        known = valid = False
        for token in self._tokens:
            same = hmac.compare_digest(given, bearer(token.value).encode())
            known |= same
            valid |= same & token.is_valid(now)
        if not valid:
            raise UnauthenticatedError(
                "the bearer token has expired; ask whoever runs the server for a new one"
                if known
                else "no valid bearer token; set DEMIURGE_TOKEN_FILE to the server's token"
            )

    def _renew(self) -> None:
        if not self._file.has_changed():
            return
        try:
            self._tokens = self._read()
        except ConfigurationError as error:
            # As when it is just being written: what was good stays so.
            structlog.get_logger().error("credentials cannot be renewed", reason=error.message)
        else:
            structlog.get_logger().info("credentials were renewed", file=str(self._file.path))

    def _read(self) -> list[_Token]:
        lines = self._file.content().decode(errors="replace").splitlines()
        tokens = [self._token(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if not tokens:
            raise self._file.wrong(f"{self._file.path} holds no token")
        return tokens

    def _token(self, number: int, line: str) -> _Token:
        # Never the line itself: it is a secret.
        place = f"line {number} of {self._file.path}"
        value, _, time = line.strip().partition(" ")
        if not value.isascii() or not value.isprintable():
            raise self._file.wrong(f"{place} is not a token of printable ASCII")
        if not time.strip():
            return _Token(value, None)
        try:
            expiry = datetime.fromisoformat(time.strip())
        except ValueError:
            raise self._file.wrong(
                f"{place}: what follows the token is not a time like 2026-12-01T00:00:00Z",
            ) from None
        return _Token(value, expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC))


def tokens_of(settings: RuntimeSettings, field: str = "token_file") -> Tokens | None:
    """The tokens of the file that `field` of the settings names; None where none is set.

    Raises ConfigurationError as Tokens does.
    """
    path: Path | None = getattr(settings, field)
    return Tokens(field, path) if path else None


def bearer(token: str) -> str:
    """The authorization header's value."""
    return _SCHEME + token
