"""What services are added to in the place of a server: requests that cannot be decoded get an
answer of ours.

gRPC itself takes a request that its deserializer refuses for a bug of the service: it writes a
traceback into the log, and the caller sees UNKNOWN.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from quorumlog.api.status import abort
from quorumlog.discovery.limits import RateLimit
from quorumlog.errors import InvalidArgument, QuorumlogError

_LOG_INTERVAL_S: Final = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Stands for a request."""

    error: QuorumlogError


class HandlerRegistry:
    """Hands handlers on to ``server``. The caller of what cannot be decoded gets INVALID_ARGUMENT.

    A request within a stream is raised in the service's iteration of them, as InvalidArgument.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.undecodable = 0
        """Requests that could not be decoded."""
        self._server = server
        self._limit = RateLimit(_LOG_INTERVAL_S)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers([_Generic(each, self._checked) for each in handlers])

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        checked = {
            name: self._checked(f"/{service}/{name}", handler) for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, checked)

    def _checked(self, method: str, handler: Any) -> Any:
        if handler.request_deserializer is None:
            return handler  # it takes bytes as they are
        decode: Callable[[bytes], Any] = handler.request_deserializer
        encode = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._answering(handler.unary_unary), self._giving(method, decode), encode
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream), self._giving(method, decode), encode
            )
        return handler._replace(request_deserializer=self._raising(method, decode))

    def _answering(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        async def answer(request: Any, context: Any) -> Any:
            if isinstance(request, _Undecodable):
                await self._refuse(request, context)
            return await behavior(request, context)

        return answer

    def _streaming(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            if isinstance(request, _Undecodable):
                await self._refuse(request, context)
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    yield response

        return stream

    async def _refuse(self, request: _Undecodable, context: Any) -> None:
        await abort(context, request.error)

    def _giving(self, method: str, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        raising = self._raising(method, decode)

        def give(encoded: bytes) -> Any:
            try:
                return raising(encoded)
            except QuorumlogError as error:
                return _Undecodable(error)

        return give

    def _raising(self, method: str, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def decoded(encoded: bytes) -> Any:
            try:
                return decode(encoded)
            except QuorumlogError as error:
                self._note(method, error, len(encoded))
                raise
            except DecodeError as error:
                refusal = InvalidArgument(f"the request of {method} cannot be decoded: {error}")
                self._note(method, refusal, len(encoded))
                raise refusal from error

        return decoded

    def _note(self, method: str, error: QuorumlogError, size_bytes: int) -> None:
        """Count one more; a line every ten seconds at most."""
        self.undecodable += 1
        if self._limit.allows(asyncio.get_running_loop().time()):
            _log.warning(
                "request_not_decoded",
                method=method,
                size_bytes=size_bytes,
                error=str(error),
                not_logged=self._limit.take_suppressed(),
            )


class _Generic:
    """A ``grpc.GenericRpcHandler``, as much of it as a server asks for."""

    def __init__(self, handler: grpc.GenericRpcHandler, check: Callable[[str, Any], Any]) -> None:
        self._handler = handler
        self._check = check
        self._checked: dict[str, tuple[Any, Any]] = {}
        """By method, what the handler gave, and that checked."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        found = self._handler.service(details)
        if found is None:
            return None
        before, checked = self._checked.get(details.method, (None, None))
        if before is not found:
            checked = self._check(details.method, found)
            self._checked[details.method] = (found, checked)
        return checked
