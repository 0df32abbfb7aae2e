"""Who may speak with whom: TLS credentials and the bearer token, from files."""

import hmac
import ipaddress
from pathlib import Path

import grpc

from services.errors import ConfigurationError
from services.runtime.settings import RuntimeSettings, variable_of

AUTHORIZATION_KEY = "authorization"
_SCHEME = "Bearer "


def server_credentials(settings: RuntimeSettings) -> grpc.ServerCredentials | None:
    """TLS for a server, mutual if there is a CA; None where no certificate is set.

    Raises ConfigurationError, naming the variable, for files that are missing or not PEM.
    """
    pair = _key_pair(settings)
    if pair is None:
        return None
    authorities = _pem(settings, "tls_ca")
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authorities, require_client_auth=authorities is not None
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


def read_token(settings: RuntimeSettings, field: str = "token_file") -> str:
    """The bearer token in the file that `field` of the settings names; "" where none is set.

    Raises ConfigurationError, naming the variable, for a file that is missing, empty or not one
    line of printable ASCII.
    """
    path: Path | None = getattr(settings, field)
    if path is None:
        return ""
    token = _content(settings, field).decode(errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise _wrong(field, f"{path} does not hold one line of ASCII")
    return token


def bearer(token: str) -> str:
    """The authorization header's value."""
    return _SCHEME + token


def is_bearer_of(token: str, value: str) -> bool:
    """Whether the header's value carries the token; takes as long whatever it is."""
    return hmac.compare_digest(value.encode(), bearer(token).encode())


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


def _key_pair(settings: RuntimeSettings) -> tuple[bytes, bytes] | None:
    key, certificate = _pem(settings, "tls_key"), _pem(settings, "tls_certificate")
    if key and certificate:
        return key, certificate
    if key or certificate:
        field = "tls_certificate" if key else "tls_key"
        raise _wrong(field, "a certificate and its key come together")
    return None


def _pem(settings: RuntimeSettings, field: str) -> bytes | None:
    if getattr(settings, field) is None:
        return None
    content = _content(settings, field)
    if b"-----BEGIN " not in content:
        raise _wrong(field, f"{getattr(settings, field)} is not a PEM file")
    return content


def _content(settings: RuntimeSettings, field: str) -> bytes:
    path: Path = getattr(settings, field)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(field, f"{path} cannot be read: {error.strerror}") from None


def _wrong(field: str, problem: str) -> ConfigurationError:
    variable = variable_of(RuntimeSettings, field)
    return ConfigurationError(f"{variable}: {problem}", culprit=variable)
