"""Ending a call with a typed error; the table is in ``quorumlog.rpc_status``, clients share it."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeVar

import grpc

from quorumlog.errors import QuorumlogError
from quorumlog.rpc_status import TrailingMetadata, status_of

Service = TypeVar("Service")
Request = TypeVar("Request")
Response = TypeVar("Response")


class CallContext(Protocol):
    """All that a handler uses of a call: a simulator can make one."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: TrailingMetadata = ()
    ) -> NoReturn:
        """End the call with this status, by raising."""
        ...


async def abort(
    context: CallContext, error: QuorumlogError, localized: str | None = None
) -> NoReturn:
    """End the call with the status and details of ``error``; see :func:`status_of`."""
    code, message, metadata = status_of(error, localized)
    await context.abort(code, message, metadata)


UnaryHandler = Callable[[Service, Request, CallContext], Coroutine[Any, Any, Response]]


def aborting(
    handler: UnaryHandler[Service, Request, Response],
) -> UnaryHandler[Service, Request, Response]:
    """Give a unary handler's typed errors to the caller as statuses.

    Any other exception is a bug: gRPC logs it, and the caller sees UNKNOWN, which its client takes
    for an unknown outcome.
    """

    @wraps(handler)
    async def answer(service: Service, request: Request, context: CallContext) -> Response:
        try:
            return await handler(service, request, context)
        except QuorumlogError as error:
            await abort(context, error)

    return answer
