"""One bucket of an S3 server: requests that are signed, tried again for seconds, and told apart.

The minio client signs, and reads XML. Its public methods cannot send a condition with the end of a
multipart upload, nor take in an answer whole before they return, so requests for objects go through
the one method below them; an answer that breaks off is then asked for again like one that never
came.
"""

import io
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name
from typing_extensions import override
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from services.errors import (
    ConfigurationError,
    ConflictError,
    DemiurgeError,
    NotFoundError,
    ObjectKeyError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from services.runtime.object_store.port import missing
from services.runtime.settings import S3Settings

NONE: Mapping[str, str] = MappingProxyType({})
ABANDONED_AFTER = timedelta(days=1)
CONNECT_SECONDS = 3.0
CONNECTIONS = 32
SENT_BYTES = 1 << 16
# A connection refused, or an answer like "slow down", is tried again after 0, 0.4 and 0.8 s; a
# silence has cost its whole timeout already.
RETRY = Retry(
    total=3,
    read=1,
    redirect=False,
    # All that is asked of S3 may be asked twice, with POST, too.
    allowed_methods=None,
    backoff_factor=0.2,
    status_forcelist=[500, 502, 503, 504],
    raise_on_status=False,
    respect_retry_after_header=False,
)
_REFUSED = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}
# What OpenSSL calls an answer that is not TLS, by its version.
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "record layer failure")
_TAKEN = {"ExistingObjectIsDirectory", "ExistingObjectIsFile", "XMinioParentIsObject"}
_FULL = {"EntityTooLargeForQuota", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}


class ConditionFailed(Exception):  # noqa: N818 - an answer, not a failure
    """The condition that a request was sent with does not hold."""


class ConditionsUnknown(Exception):  # noqa: N818 - an answer, not a failure
    """The server has no such conditions."""


class EmptyRange(Exception):  # noqa: N818 - an answer, not a failure
    """The object ends before the range begins."""


class _Pool(urllib3.PoolManager):
    """Sends bodies in blocks: a socket's timeout is for all that it is given at once.

    On a slow line, a whole part of an upload would never be sent in time.
    """

    @override
    def urlopen(  # type: ignore[override]
        self, method: str, url: str, *, body: bytes | None = None, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        return super().urlopen(method, url, body=io.BytesIO(body) if body else body, **options)


class Bucket:
    """A bucket, made if it is not there; `prefix` is all that is asked of it.

    Keys are the server's own, prefix and all.
    Raises ConfigurationError, naming the variable, for settings that cannot work, and NotFoundError
    for a bucket that is not there and not to be made.
    """

    def __init__(self, name: str, prefix: str, settings: S3Settings, *, make: bool = True) -> None:
        self.name = name
        self._endpoint = settings.endpoint.rstrip("/")
        secure = self._endpoint.startswith("https://")
        try:
            self._client = Minio(
                self._endpoint.partition("://")[2],
                access_key=_secret(settings, "access_key_file"),
                secret_key=_secret(settings, "secret_key_file"),
                secure=secure,
                region=settings.region,
                http_client=_Pool(
                    maxsize=CONNECTIONS,
                    blocksize=SENT_BYTES,
                    timeout=Timeout(connect=CONNECT_SECONDS, read=settings.timeout_seconds),
                    retries=RETRY,
                    ssl_context=_trusted(settings) if secure else None,
                ),
            )
        except ValueError as error:
            raise _wrong("DEMIURGE_S3_ENDPOINT", f"{self._endpoint}: {error}") from None
        try:
            check_bucket_name(name)
        except ValueError as error:
            raise _wrong("DEMIURGE_STORE", f"s3://{name}: {error}") from None
        self._find(prefix, make=make)

    def request(
        self,
        method: str,
        key: str,
        *,
        headers: Mapping[str, str] = NONE,
        condition: Mapping[str, str] = NONE,
        query: Mapping[str, str] = NONE,
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One request about one object; the answer, all of it read.

        `condition` is headers, too. Raises ConditionFailed and ConditionsUnknown if there is one,
        NotFoundError, EmptyRange, and what a store raises.
        """
        with self._answers(key, conditional=bool(condition)):
            return self._client._execute(
                method,
                self.name,
                key,
                body=body,
                headers={**headers, **condition},
                query_params=dict(query),
            )

    def told(self, answer: urllib3.BaseHTTPResponse, key: str) -> ET.Element:
        """The XML of an answer; a failure that comes as a success raises as others do."""
        with self._answers(key, conditional=True):
            # The server is the one that the settings trust with all data.
            element = ET.fromstring(answer.data)  # noqa: S314
            if element.tag.endswith("Error"):
                raise S3Error.fromxml(answer)
            return element

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with `prefix`, in whatever order the server has."""
        with self._answers(prefix or self.name):
            for found in self._client.list_objects(self.name, prefix=prefix, recursive=True):
                yield str(found.object_name)

    def still_there(self) -> None:
        """Raises UnavailableError if the bucket has gone."""
        with self._answers(self.name):
            if not self._client.bucket_exists(self.name):
                raise self._gone()

    def abort_abandoned_uploads(self, prefix: str) -> None:
        """Clears the parts that writers who were killed while uploading have left."""
        oldest = datetime.now(UTC) - ABANDONED_AFTER
        # Not everybody may see them, and not every server shows them.
        with suppress(DemiurgeError), self._answers(prefix):
            listed = self._client._list_multipart_uploads(self.name, prefix=prefix)
            for upload in listed.uploads:
                name, number, begun = upload.object_name, upload.upload_id, upload.initiated_time
                if name and number and begun and begun < oldest:
                    self.request("DELETE", name, query={"uploadId": number})

    def _find(self, prefix: str, *, make: bool) -> None:
        try:
            with self._answers(self.name):
                # Unlike a question for the bucket's head, this one is answered with a reason.
                answer = self._client._execute(
                    "GET",
                    self.name,
                    query_params={"list-type": "2", "max-keys": "1", "prefix": prefix},
                )
        except UnavailableError as error:
            if _code(error) != "NoSuchBucket":
                raise
            if not make:
                raise NotFoundError(f"there is no bucket {self.name}", culprit=self.name) from None
            self._make()
        else:
            if not self.told(answer, self.name).tag.endswith("ListBucketResult"):
                raise self._away(self.name, "does not answer as S3 does")

    def _make(self) -> None:
        try:
            with self._answers(self.name):
                self._client.make_bucket(self.name)
        except UnauthenticatedError:
            raise _wrong(
                "DEMIURGE_STORE",
                f"there is no bucket {self.name} at {self._endpoint}, and these keys may not make "
                "it: make it, or name another",
            ) from None
        except UnavailableError as error:
            # Somebody else may have been faster.
            if _code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    @contextmanager
    def _answers(self, culprit: str, *, conditional: bool = False) -> Iterator[None]:
        """Turns what the client raises into the project's own errors."""
        try:
            yield
        except S3Error as error:
            if conditional and error.code in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise ConditionFailed from error
            if conditional and error.code == "NotImplemented":
                raise ConditionsUnknown from error
            raise self._meaning(error, culprit) from error
        except (ServerError, InvalidResponseError, ET.ParseError) as error:
            status = getattr(error, "status_code", getattr(error, "_code", 0))
            if status == 507:
                raise self._full(culprit) from error
            raise self._away(culprit, f"does not answer as S3 does: {error}") from error
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.SSLError):
                if any(sign in str(reason) for sign in _PLAIN):
                    raise _wrong(
                        "DEMIURGE_S3_ENDPOINT", f"{self._endpoint} answers plain http: say http://"
                    ) from error
                raise _wrong(
                    "DEMIURGE_S3_CA", f"{self._endpoint} is not trusted: {reason}"
                ) from error
            # urllib3 begins with its own object, host and all.
            why = str(reason).partition("): ")[2] or str(reason)
            raise self._away(culprit, f"does not answer: {why}") from error
        except MinioException as error:
            raise self._away(culprit, f"failed: {error}") from error

    def _meaning(self, error: S3Error, culprit: str) -> Exception:
        code, status = error.code or "", error.response.status
        said = f"{code}: {error.message}"
        meaning: Exception
        if code == "NoSuchKey":
            meaning = missing(culprit)
        elif code == "NoSuchBucket":
            meaning = self._gone()
        elif code in _TAKEN:
            meaning = ConflictError(
                f"{culprit}: this server keeps no object of a name that others lie below",
                culprit=culprit,
            )
        elif code == "InvalidRange":
            meaning = EmptyRange()
        elif code in _FULL or status == 507:
            meaning = self._full(culprit)
        elif code == "RequestTimeTooSkewed":
            meaning = UnauthenticatedError(
                f"{self._endpoint} refuses requests of this machine, whose clock differs from its "
                "own: set both clocks",
                culprit="DEMIURGE_S3_ENDPOINT",
            )
        elif code in _REFUSED:
            meaning = UnauthenticatedError(
                f"{culprit}: {self._endpoint} refuses the keys in DEMIURGE_S3_ACCESS_KEY_FILE and "
                f"DEMIURGE_S3_SECRET_KEY_FILE ({said}): they have to be right, and to allow "
                f"listing, reading and writing of {self.name}",
                culprit="DEMIURGE_S3_ACCESS_KEY_FILE",
            )
        elif code in _WRONG_REGION:
            meaning = _wrong("DEMIURGE_S3_REGION", f"{self.name} is in another region: {said}")
        elif code in {"KeyTooLongError", "XMinioInvalidObjectName", "InvalidURI"}:
            meaning = ObjectKeyError(
                f"{culprit!r} is no key for this server: {said}", culprit=culprit
            )
        else:
            meaning = UnavailableError(
                f"{culprit}: the object store at {self._endpoint} answers {said}; its log says "
                "why, and a full disk may be the reason",
                culprit=culprit,
            )
        return meaning

    def _away(self, culprit: str, what: str) -> UnavailableError:
        return UnavailableError(
            f"{culprit}: the object store at {self._endpoint} {what}; see that it runs and that "
            "DEMIURGE_S3_ENDPOINT names it",
            culprit=culprit,
        )

    def _gone(self) -> UnavailableError:
        return UnavailableError(
            f"the bucket {self.name} has gone from {self._endpoint}: bring it back, or start anew "
            "and it is made",
            culprit=self.name,
        )

    def _full(self, culprit: str) -> StorageFullError:
        return StorageFullError(
            f"{culprit}: the object store at {self._endpoint} is full: make room in it, or raise "
            f"the quota of {self.name}",
            culprit=self._endpoint,
        )


def _code(error: UnavailableError) -> str:
    """What the server called it."""
    cause = error.__cause__
    return cause.code or "" if isinstance(cause, S3Error) else ""


def _wrong(variable: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{variable}: {what}", culprit=variable)


def _secret(settings: S3Settings, field: str) -> str:
    path: Path = getattr(settings, field)
    variable = f"DEMIURGE_S3_{field}".upper()
    try:
        secret = path.expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(variable, f"{path} cannot be read: {error}") from None
    if not secret:
        raise _wrong(variable, f"{path} is empty")
    return secret


def _trusted(settings: S3Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        raise _wrong("DEMIURGE_S3_CA", f"{settings.ca} cannot be read: {error}") from None
