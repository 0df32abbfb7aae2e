"""Turns what servicers raise into statuses; what nobody foresaw is logged and told to no one."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog
from typing_extensions import override

from services.errors import DemiurgeError, UnavailableError
from services.runtime.call import current_call
from services.runtime.interceptors.around import AroundCall, Context
from services.runtime.interceptors.in_flight import ELSEWHERE
from services.runtime.status import DETAILS_KEY, code_of, error_from_rpc, status_of

# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
# Whoever names a culprit was patient with it already; if each channel on the way asked again by
# itself, these tries would multiply, and a caller that asks once would wait for minutes.
NO_RETRY = ("grpc-retry-pushback-ms", "-1")
# Envoy alone asks again, for as long as a restart takes, if the culprit was found absent sooner:
# one that hangs, as a store may for 20 s, or went after much work, has cost enough already.
ABSENCE_SECONDS = 15.0


class ErrorInterceptor(AroundCall):
    """Maps the error tree, and errors of further calls as if they had been raised here."""

    @override
    @asynccontextmanager
    async def around(
        self,
        details: grpc.HandlerCallDetails,
        context: Context,
    ) -> AsyncIterator[None]:
        begin = time.monotonic()
        try:
            yield
        except DemiurgeError as error:
            await _abort(context, error, begin)
        except grpc.RpcError as error:
            await _abort(context, error_from_rpc(error), begin)
        except grpc.aio.AbortError:
            raise
        except Exception:
            structlog.get_logger().exception("unforeseen error")
            call = current_call()
            await _abort(
                context,
                DemiurgeError(
                    "internal error; the server's log has it under request id "
                    f"{call.request_id if call else 'none'}"
                ),
                begin,
            )


async def _abort(context: Context, error: DemiurgeError, begin: float) -> None:
    status = status_of(error)
    metadata = [*(context.trailing_metadata() or ()), (DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, UnavailableError) and error.culprit:
        metadata.append(NO_RETRY)
        if time.monotonic() - begin < ABSENCE_SECONDS:
            metadata.append(ELSEWHERE)
    await context.abort(code_of(error), status.message, tuple(metadata))
