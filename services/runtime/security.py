"""Who may speak with whom: TLS credentials, from files that may be renewed while we run.

Certificates that a server shows, and authorities that it trusts, are read again when their files
change. A client reads its own with each channel that it opens.
"""

from pathlib import Path

import grpc
import structlog

from services.errors import ConfigurationError
from services.runtime.addresses import is_loopback
from services.runtime.credential_files import CredentialFile
from services.runtime.settings import RuntimeSettings, variable_of


def server_credentials(settings: RuntimeSettings) -> grpc.ServerCredentials | None:
    """TLS for a server, mutual if there is a CA; None where no certificate is set.

    Raises ConfigurationError, naming the variable, for files that are missing or not PEM.
    """
    # Before they are read, so that no change is missed.
    renewed = _Renewed(settings)
    first = _certificates(settings)
    if first is None:
        return None
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
        self._files = [
            CredentialFile(RuntimeSettings, field, path)
            for field in ("tls_certificate", "tls_key", "tls_ca")
            if (path := getattr(settings, field))
        ]

    def certificates(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake."""
        # Every one is asked, or a renewal of three files would be three.
        changed = [file.has_changed() for file in self._files]
        if not any(changed):
            return None
        try:
            renewed = _certificates(self._settings)
        except ConfigurationError as error:
            # Half of a renewal: those that were good are kept.
            structlog.get_logger().error("certificates cannot be renewed", reason=error.message)
            return None
        structlog.get_logger().info("certificates were renewed")
        return renewed


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
        variable = variable_of(RuntimeSettings, "tls_certificate" if key else "tls_key")
        raise ConfigurationError(
            f"{variable}: a certificate and its key come together", culprit=variable
        )
    return None


def _pem(settings: RuntimeSettings, field: str) -> bytes | None:
    path: Path | None = getattr(settings, field)
    return CredentialFile(RuntimeSettings, field, path).pem() if path else None
