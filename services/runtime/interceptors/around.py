"""What server interceptors have in common: something before and after each call, of all four kinds.

From the outside in: request_id (all that follows logs with it), tracing, access_log and metrics
(see the final code), errors (turns exceptions into statuses), in_flight (refuses while draining),
authentication (before anything is read), validation.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from typing import Any

import grpc

from services.errors import TimeExceededError

Context = grpc.aio.ServicerContext[Any, Any]
HEALTH_SERVICE = "/grpc.health.v1.Health/"
STALLED_SECONDS = 600.0
"""A caller who takes nothing of a stream for so long has gone, though the connection stands."""
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class AroundCall(grpc.aio.ServerInterceptor):
    """Base of the interceptors: runs each call inside `around`, each request through `check`."""

    def around(
        self,
        details: grpc.HandlerCallDetails,  # noqa: ARG002 - for those who override
        context: Context,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """What happens before and after a call; nothing, unless overridden."""
        return nullcontext()

    def check(self, request: Any) -> None:
        """Looks at a request, or at each message of a stream of them; raises to refuse."""

    async def intercept_service(
        self,
        continuation: _Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a call; called by gRPC."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior:
                break
        wrap = getattr(grpc, f"{kind}_rpc_method_handler")
        return wrap(
            self._stream(behavior, handler, handler_call_details)
            if handler.response_streaming
            else self._unary(behavior, handler, handler_call_details),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, behavior: Any, handler: Any, details: grpc.HandlerCallDetails) -> Any:
        async def serve(request: Any, context: Context) -> Any:
            async with self.around(details, context):
                return await behavior(self._checked(request, handler), context)

        return serve

    def _stream(self, behavior: Any, handler: Any, details: grpc.HandlerCallDetails) -> Any:
        # A coroutine that writes, not a generator: gRPC never closes generators whose call was
        # cancelled, so nothing after their `yield` would be sure to run in time.
        async def serve(request: Any, context: Context) -> None:
            async with self.around(details, context):
                responses = behavior(self._checked(request, handler), context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        try:
                            async with asyncio.timeout(STALLED_SECONDS):
                                await context.write(response)
                        except TimeoutError as error:
                            raise TimeExceededError(
                                f"nothing was read for {STALLED_SECONDS:g} s, so the call was "
                                "ended: begin again, or go on from what has arrived"
                            ) from error
                        except grpc.aio.InternalError as error:
                            # gRPC's word for a caller who left while this was on its way.
                            raise asyncio.CancelledError from error

        return serve

    def _checked(self, request: Any, handler: Any) -> Any:
        if handler.request_streaming:
            return self._each_checked(request)
        self.check(request)
        return request

    async def _each_checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self.check(request)
            yield request


@contextmanager
def at_end(context: Context, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells the name of the call's final code, however the call ends."""
    cancelled = False
    try:
        yield
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        code = context.code()
        # gRPC answers with a number until a code is set.
        number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
        tell("CANCELLED" if cancelled else _CODES.get(number, "UNKNOWN"))
