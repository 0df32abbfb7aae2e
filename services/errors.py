"""The errors of Demiurge: one tree, raised by domain code, translated at the edge.

    DemiurgeError
    ├── InvalidInputError            the request, or a file it names, cannot be used
    │   ├── UnreadableAudioError     a file is not audio, or is damaged
    │   ├── SettingsMismatchError    rates, hops, mel settings or features that do not agree
    │   ├── WindowTooLongError       a sound is shorter than what a predictor looks at
    │   ├── ObjectKeyError           a key that leaves the store, or is malformed
    │   └── UntrustedCheckpointError a pickle that holds more than weights
    ├── NotFoundError                no such object, model, predictor, collection or run
    ├── ConflictError                another content or specification under a name that is taken
    ├── NotReadyError                a resource exists, but not yet in the state that is needed
    ├── CorruptObjectError           stored bytes that do not fit their hash or layout
    ├── BusyError                    a queue is full: try again later
    ├── StorageFullError             no room left: nothing can be written until someone makes some
    ├── UnavailableError             a service or store that cannot be reached
    ├── TimeExceededError            a deadline passed before the answer
    ├── CancelledError               the caller, or CancelRun, stopped the work
    ├── UnauthenticatedError         credentials missing, wrong or expired
    └── ConfigurationError           a setting that cannot work; raised at start, named by variable

`services.runtime.status` maps the tree to google.rpc.Status, and a test holds it complete.
"""

from typing import ClassVar


class DemiurgeError(Exception):
    """Base of all; `culprit` names the file, field, id or variable that is to blame."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, culprit: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.culprit = culprit


class InvalidInputError(DemiurgeError):
    """The request, or a file it names, cannot be used."""

    reason = "INVALID_INPUT"


class UnreadableAudioError(InvalidInputError):
    """A file is not audio, or is damaged. `culprit` is its name."""

    reason = "UNREADABLE_AUDIO"


class SettingsMismatchError(InvalidInputError):
    """Rates, hops, mel settings or feature names that do not agree."""

    reason = "SETTINGS_MISMATCH"


class WindowTooLongError(InvalidInputError):
    """A sound is shorter than what a predictor looks at. `culprit` is the sound's name."""

    reason = "WINDOW_TOO_LONG"


class ObjectKeyError(InvalidInputError):
    """An object key that leaves the store, or is malformed."""

    reason = "OBJECT_KEY_INVALID"


class UntrustedCheckpointError(InvalidInputError):
    """A checkpoint whose pickle holds more than weights and plain settings."""

    reason = "UNTRUSTED_CHECKPOINT"


class NotFoundError(DemiurgeError):
    """No such object, model, predictor, collection or run."""

    reason = "NOT_FOUND"


class ConflictError(DemiurgeError):
    """Another content or specification under a name that is taken."""

    reason = "CONFLICT"


class NotReadyError(DemiurgeError):
    """A resource exists, but not yet in the state that is needed."""

    reason = "NOT_READY"


class CorruptObjectError(DemiurgeError):
    """Stored bytes that do not fit their hash or layout. `culprit` is the key."""

    reason = "CORRUPT_OBJECT"


class BusyError(DemiurgeError):
    """A queue is full: try again later."""

    reason = "BUSY"


class StorageFullError(DemiurgeError):
    """No room left: nothing can be written until someone makes some."""

    reason = "STORAGE_FULL"


class UnavailableError(DemiurgeError):
    """A service or store that cannot be reached."""

    reason = "UNAVAILABLE"


class TimeExceededError(DemiurgeError):
    """A deadline passed before the answer."""

    reason = "TIME_EXCEEDED"


class CancelledError(DemiurgeError):
    """The caller, or CancelRun, stopped the work."""

    reason = "CANCELLED"


class UnauthenticatedError(DemiurgeError):
    """Credentials missing, wrong or expired."""

    reason = "UNAUTHENTICATED"


class ConfigurationError(DemiurgeError):
    """A setting that cannot work. `culprit` is the environment variable."""

    reason = "CONFIGURATION"


FAULTS = (CorruptObjectError, StorageFullError, UnauthenticatedError, UnavailableError)
"""What is wrong with a store or index itself. The others are answers: no such key, a name taken."""
FAULT_REASONS = (*(fault.reason for fault in FAULTS), DemiurgeError.reason)


def fault_of(error: Exception) -> str:
    """Why a store or index failed, one of FAULT_REASONS; "" if it did its part and says no."""
    if isinstance(error, FAULTS):
        return error.reason
    return "" if isinstance(error, DemiurgeError) else DemiurgeError.reason
