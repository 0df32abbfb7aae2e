"""Who may speak with whom: TLS credentials, from files that may be renewed while we run.

Certificates that a server shows, and authorities that it trusts, are read again when their files
change. A client reads its own with each channel that it opens.
"""

import ipaddress
from pathlib import Path

import grpc
import structlog

from services.errors import ConfigurationError
from services.runtime.settings import RuntimeSettings, variable_of


def server_credentials(settings: RuntimeSettings) -> grpc.ServerCredentials | None:
    """TLS for a server, mutual if there is a CA; None where no certificate is set.

    Raises ConfigurationError, naming the variable, for files that are missing or not PEM.
    """
    first = _certificates(settings)
    if first is None:
        return None
    renewed = _Renewed(settings)
    return grpc.dynamic_ssl_server_credentials(
        first,
        renewed.certificates,  # type: ignore[arg-type]  # gRPC takes None for "as before"
        require_client_authentication=settings.tls_ca is not None,
    )


def channel_credentials(settings: RuntimeSettings) -> grpc.ChannelCredentials | None:
    """TLS for a client that trusts the CA, with a certificate of its own if set; None without CA.

    Raises ConfigurationError, naming the variable, for files that are missing or not PEM.
    """
    authorities = _pem(settings, "tls_ca")
    if authorities is None:
        return None
    key, certificate = _key_pair(settings) or (None, None)
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def checked_bind(settings: RuntimeSettings) -> None:
    """Raises ConfigurationError for a server that strangers could reach and use.

    Beyond loopback it takes TLS, and a token or client certificates, or plain permission.
    """
    if is_loopback(settings.bind_address) or settings.allow_insecure_bind:
        return
    missing = [] if settings.tls_certificate else ["tls_certificate", "tls_key"]
    if not settings.token_file and not settings.tls_ca:
        missing.append("token_file")
    if missing:
        variables = ", ".join(variable_of(RuntimeSettings, field) for field in missing)
        raise ConfigurationError(
            f"DEMIURGE_BIND_ADDRESS: {settings.bind_address} can be reached from other machines; "
            f"set {variables}, or DEMIURGE_ALLOW_INSECURE_BIND=true where the network itself is "
            "guarded",
            culprit="DEMIURGE_BIND_ADDRESS",
        )


class _Renewed:
    """The certificates of the files, for each handshake; None while they are the same."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._seen = self._state()

    def certificates(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake."""
        state = self._state()
        if state == self._seen:
            return None
        self._seen = state
        try:
            renewed = _certificates(self._settings)
        except ConfigurationError as error:
            # Half of a renewal: those that were good are kept.
            structlog.get_logger().error("certificates cannot be renewed", reason=error.message)
            return None
        structlog.get_logger().info("certificates were renewed")
        return renewed

    def _state(self) -> list[tuple[int, int, int] | None]:
        settings = self._settings
        return [
            file_state(path)
            for path in (settings.tls_certificate, settings.tls_key, settings.tls_ca)
            if path
        ]


def file_state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None if it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _certificates(settings: RuntimeSettings) -> grpc.ServerCertificateConfiguration | None:
    pair = _key_pair(settings)
    if pair is None:
        return None
    return grpc.ssl_server_certificate_configuration([pair], _pem(settings, "tls_ca"))


def _key_pair(settings: RuntimeSettings) -> tuple[bytes, bytes] | None:
    key, certificate = _pem(settings, "tls_key"), _pem(settings, "tls_certificate")
    if key and certificate:
        return key, certificate
    if key or certificate:
        field = "tls_certificate" if key else "tls_key"
        raise wrong(field, "a certificate and its key come together")
    return None


def _pem(settings: RuntimeSettings, field: str) -> bytes | None:
    if getattr(settings, field) is None:
        return None
    content = _content(settings, field)
    if b"-----BEGIN " not in content:
        raise wrong(field, f"{getattr(settings, field)} is not a PEM file")
    return content


def _content(settings: RuntimeSettings, field: str) -> bytes:
    return content_of(field, getattr(settings, field))


def content_of(field: str, path: Path) -> bytes:
    """The bytes of the file that `field` of the settings names.

    Raises ConfigurationError, naming the variable, if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise wrong(field, f"{path} cannot be read: {error.strerror}") from None


def wrong(field: str, problem: str) -> ConfigurationError:
    """The error of a setting that cannot work."""
    variable = variable_of(RuntimeSettings, field)
    return ConfigurationError(f"{variable}: {problem}", culprit=variable)
