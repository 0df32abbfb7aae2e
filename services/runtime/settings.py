"""Settings: frozen, typed, read from the environment once at start, failing by variable name.

Every noun's settings.py subclasses `ServiceSettings` under its own prefix:

    class QuerySettings(ServiceSettings):
        model_config = prefix("DEMIURGE_QUERY_")

and the composition root reads it with `load(QuerySettings)`.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.errors import ConfigurationError

COMMON_PREFIX = "DEMIURGE_"
NOUNS = ("synth", "descriptor", "predictor", "query", "playback", "gateway")
MEBIBYTE = 1024 * 1024
# What people set instead.
_MEANT = {"DEMIURGE_S3_BUCKET": "DEMIURGE_STORE=s3://bucket"}
# By pydantic's type of error.
_WANTED = {
    "bool_parsing": "true or false",
    "float_parsing": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "of the form that is described here",
}


def prefix(name: str) -> SettingsConfigDict:
    """Model configuration for settings whose variables begin with `name`.

    Empty variables count as unset, since compose files pass on what is not set as empty.
    """
    return SettingsConfigDict(
        env_prefix=name,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_default=True,
        protected_namespaces=(),
    )


class ServiceSettings(BaseSettings):
    """Base of all settings; build it with `load`, or with keywords in tests."""

    model_config = prefix(COMMON_PREFIX)
    needed_for: ClassVar[str] = ""
    """What cannot work while one of them lacks that has no default."""


class RuntimeSettings(ServiceSettings):
    """What every service and client shares."""

    model_config = prefix(COMMON_PREFIX)

    home: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.demiurge"), description="Folder that holds everything not placed elsewhere."
    )
    store: str = Field(
        default_factory=lambda settings: str(settings["home"] / "store"),
        description="Where all objects are: a folder, or s3://bucket or s3://bucket/prefix with "
        "the settings DEMIURGE_S3_…; the folder store in the home unless set.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="One JSON object a line, or lines for a person at a terminal."
    )
    bind_address: str = Field(
        "127.0.0.1", min_length=1, description="Address that the server listens on."
    )
    port: int = Field(
        50051, ge=0, le=65535, description="Port that the server listens on; 0 takes a free one."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM certificate chain: a server's own, or a client's for mutual TLS."
    )
    tls_key: Path | None = Field(None, description="PEM private key of the certificate.")
    tls_ca: Path | None = Field(
        None,
        description="PEM authorities: a server asks its clients for certificates of theirs, "
        "a client trusts servers that have one.",
    )
    token_file: Path | None = Field(
        None, description="File that holds the bearer token which servers ask for and clients send."
    )
    predictor_token_file: Path | None = Field(
        None,
        description="File that holds the bearer token for the predictor at "
        "DEMIURGE_PREDICTOR_ADDRESS. It may be anybody's, so it is never sent DEMIURGE_TOKEN_FILE; "
        "name the same file here if the predictor is of this deployment and asks for that token.",
    )
    allow_insecure_bind: bool = Field(
        False, description="Listen beyond loopback although TLS or token are missing."
    )
    max_message_bytes: int = Field(
        16 * MEBIBYTE, ge=MEBIBYTE, description="Largest message sent or received."
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long calls in flight may take to finish on stop."
    )
    max_connection_age_seconds: float = Field(
        300.0,
        gt=0,
        description="After this, clients are asked to connect anew, so that new replicas get work.",
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port that answers health checks alone, without TLS, token or data: for probes "
        "that know neither. None unless set.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which Prometheus finds /metrics, without TLS. None unless set.",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^/?#@]+/?)?$",
        description="http://host:port of an OpenTelemetry collector that traces go to, by OTLP "
        "over HTTP; empty: no traces.",
    )
    reflection: bool = Field(False, description="Serve the contract by gRPC reflection.")
    address: str = Field(
        "",
        description="host:port where all services are, as behind a proxy that routes by package; "
        "a noun's own address goes before it.",
    )
    synth_address: str = Field("", description="host:port of synth; empty means embedded.")
    descriptor_address: str = Field("", description="host:port of descriptor; empty: embedded.")
    predictor_address: str = Field("", description="host:port of predictor; empty: embedded.")
    query_address: str = Field("", description="host:port of query; empty means embedded.")
    playback_address: str = Field("", description="host:port of playback; empty: embedded.")
    gateway_address: str = Field("", description="host:port of the gateway; empty: embedded.")

    def address_of(self, noun: str) -> str:
        """host:port of the service of that noun, or "" where it is embedded."""
        return str(getattr(self, self.address_field_of(noun)))

    def address_field_of(self, noun: str) -> str:
        """The field that says where the service of that noun is."""
        own = f"{noun}_address"
        return own if getattr(self, own) or not self.address else "address"

    def token_field_of(self, noun: str) -> str:
        """The field that names the token file for calls to the service of that noun."""
        elsewhere = noun == "predictor" and self.predictor_address
        return "predictor_token_file" if elsewhere else "token_file"


class S3Settings(ServiceSettings):
    """How the S3 server is reached, where DEMIURGE_STORE is s3://…"""

    model_config = prefix("DEMIURGE_S3_")
    needed_for = "s3:// stores"

    endpoint: str = Field(
        pattern=r"^https?://[^/?#@]+/?$", description="http://host:port or https://host:port."
    )
    access_key_file: Path = Field(description="File that holds the access key.")
    secret_key_file: Path = Field(description="File that holds the secret key.")
    region: str = Field(
        "us-east-1", min_length=1, description="Region of the bucket; most own servers ignore it."
    )
    ca: Path | None = Field(
        None, description="PEM authorities that the server's certificate is of; else the system's."
    )
    timeout_seconds: float = Field(
        10.0, gt=0, description="Longest silence of the server, after which it counts as away."
    )


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def variable_of(settings_class: type[ServiceSettings], field: str) -> str:
    """The environment variable that sets `field`."""
    return f"{settings_class.model_config.get('env_prefix', '')}{field}".upper()


def load(settings_class: type[SettingsT]) -> SettingsT:
    """Reads the settings from the environment.

    Raises ConfigurationError, naming the variables, for values that cannot be and for variables
    under the settings' prefix that do not exist.
    """
    _refuse_unknown_variables(settings_class)
    try:
        return settings_class()
    except ValidationError as error:
        problems = dict(
            _problem(settings_class, detail)
            for detail in error.errors(include_url=False, include_input=False)
        )
        listed = "; ".join(f"{variable}: {message}" for variable, message in problems.items())
        raise ConfigurationError(listed, culprit=", ".join(problems)) from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        variable = variable_of(settings_class, field.group(1) if field else "*")
        raise ConfigurationError(f"{variable}: is not valid JSON", culprit=variable) from None


def _problem(settings_class: type[ServiceSettings], detail: ErrorDetails) -> tuple[str, str]:
    """The variable and what it wants, in words of its description; never the value it has."""
    field = str(detail["loc"][0]) if detail["loc"] else "*"
    known = settings_class.model_fields.get(field)
    wanted = (known.description or "") if known else ""
    kind, bounds = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        what = "is needed" + (f" for {settings_class.needed_for}" * bool(settings_class.needed_for))
    elif kind in _WANTED:
        what = f"has to be {_WANTED[kind].format_map(bounds)}"
    else:
        # Our own checks say in their own words what is wrong.
        what = str(bounds["error"]) if kind == "value_error" else "cannot be this"
    return variable_of(settings_class, field), f"{what}: {wanted.rstrip('.')}" if wanted else what


def _refuse_unknown_variables(settings_class: type[ServiceSettings]) -> None:
    own_prefix = variable_of(settings_class, "")
    known = {variable_of(settings_class, field) for field in settings_class.model_fields}
    known |= {variable_of(RuntimeSettings, field) for field in RuntimeSettings.model_fields}
    # The common prefix begins all others, which their own settings answer for.
    others = tuple(f"{COMMON_PREFIX}{noun.upper()}_" for noun in (*NOUNS, "s3", "test"))
    for name in sorted(os.environ):
        variable = name.upper()
        if not variable.startswith(own_prefix) or variable in known:
            continue
        # Without an s3:// store nobody else would ask for it.
        if own_prefix == COMMON_PREFIX and variable.startswith(others) and variable not in _MEANT:
            continue
        close = get_close_matches(variable, known, n=1)
        meant = _MEANT.get(variable) or (close[0] if close else "")
        hint = f"; did you mean {meant}?" if meant else ""
        raise ConfigurationError(f"{name} is not a setting of Demiurge{hint}", culprit=name)
