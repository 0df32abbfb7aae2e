"""Files with credentials that settings name: read, watched for renewal, refused by variable."""

from pathlib import Path

from services.errors import ConfigurationError
from services.runtime.settings import ServiceSettings, variable_of


class CredentialFile:
    """One such file; its state is that of when it was last asked for, at first when it was made."""

    def __init__(self, settings: type[ServiceSettings], field: str, path: Path) -> None:
        self.path = path
        self.variable = variable_of(settings, field)
        self._seen = self._state()

    def content(self) -> bytes:
        """Its bytes. Raises ConfigurationError, naming the variable, if it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise self.wrong(f"{self.path} cannot be read: {error.strerror}") from None

    def pem(self) -> bytes:
        """Its bytes. Raises ConfigurationError, naming the variable, if they are not PEM."""
        content = self.content()
        if b"-----BEGIN " not in content:
            raise self.wrong(f"{self.path} is not a PEM file")
        return content

    def has_changed(self) -> bool:
        """Whether it was written, replaced or removed since this was last asked."""
        before, self._seen = self._seen, self._state()
        return self._seen != before

    def wrong(self, problem: str) -> ConfigurationError:
        """The error of a setting that cannot work."""
        return ConfigurationError(f"{self.variable}: {problem}", culprit=self.variable)

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
