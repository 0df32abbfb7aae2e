"""How long a verb waits: questions have a deadline, and whoever is busy is asked again.

Work may take as long as it takes: keepalive ends it where nobody is there any more.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import grpc

from services.errors import BusyError, TimeExceededError, UnavailableError
from services.runtime.status import DETAILS_KEY, error_from_rpc

ANSWER_SECONDS = 60.0
# Every input that was put into the store by hand is hashed before a run begins.
CREATE_RUN_SECONDS = 900.0
BUSY_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
QUESTIONS = ("Get", "List", "Cancel", "Delete", "Create")


class Waiting(grpc.UnaryUnaryClientInterceptor):
    """For the channel to `address`; `say` is told, once a call, that a service is busy.

    `plaintext` says that the channel has no TLS, where there might have to be.
    """

    def __init__(
        self, address: str, say: Callable[[str], None], *, plaintext: bool = False
    ) -> None:
        self._address = address
        self._say = say
        self._plaintext = plaintext

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """The call, once the service is not busy.

        Raises, naming the address, TimeExceededError for a question that is not answered, and
        UnavailableError if nobody is there, or nobody behind the proxy that is.
        """
        method = client_call_details.method.rpartition("/")[2]
        seconds = client_call_details.timeout or _seconds_for(method)
        details = client_call_details._replace(timeout=seconds)
        end, pause = time.monotonic() + BUSY_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            call = continuation(details, request)
            code = call.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED and seconds:
                raise TimeExceededError(
                    f"{self._address} did not answer {method} within {seconds:g} s: it hangs, or "
                    "has too much to do; look at its log, and start it anew if it says nothing",
                    culprit=self._address,
                )
            if code not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                return call
            error = error_from_rpc(call)
            if isinstance(error, UnavailableError) and not error.culprit:
                raise self._away(error, call, client_call_details.method)
            if not isinstance(error, BusyError) or time.monotonic() > end:
                return call
            if pause == FIRST_PAUSE_SECONDS:
                self._say(f"waiting: {error.message}")
            # Jitter keeps callers that were refused together from coming back together.
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _away(self, error: UnavailableError, call: Any, method: str) -> UnavailableError:
        answered = {key for key, _ in call.trailing_metadata() or ()}
        if answered and DETAILS_KEY not in answered:
            # gRPC itself, where it finds nobody, has no metadata to tell.
            noun = method.split(".")[1]
            return UnavailableError(
                f"{self._address} answers, but {noun} behind it cannot be reached: "
                f"{error.message}; see that {noun} runs",
                culprit=noun,
            )
        advice = "see that it runs there"
        if self._plaintext and not answered:
            advice += "; or it speaks TLS: set DEMIURGE_TLS_CA"
        return UnavailableError(
            f"{self._address} cannot be reached: {error.message}; {advice}", culprit=self._address
        )


def _seconds_for(method: str) -> float | None:
    if method == "CreateRun":
        return CREATE_RUN_SECONDS
    return ANSWER_SECONDS if method.startswith(QUESTIONS) else None
