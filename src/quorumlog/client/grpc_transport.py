"""The real transport: one ``grpc.aio`` channel per node."""

import asyncio
from typing import Any, Final, Generic

import grpc
import grpc.aio
from google.protobuf.message import Message

from quorumlog.client.transport import Connection, MessageT, Stream
from quorumlog.errors import OutcomeUnknown, ProtocolError, QuorumlogError, Unavailable
from quorumlog.rpc_status import error_from_rpc
from quorumlog.types import MAX_MESSAGE_BYTES

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A node that vanished without a word is noticed within 15 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A node that comes back is reached within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Two clients in one process must not share a connection, or closing one would disturb the
    # other.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


_END: Final[Any] = vars(grpc.aio)["EOF"]
"""What a stream reads at its end; the type stubs do not have it."""


class GrpcConnector:
    """Plaintext gRPC. Connections belong to the event loop that is running when they are made."""

    def connect(self, address: str) -> Connection:
        return GrpcConnection(address)


class GrpcConnection:
    def __init__(self, address: str) -> None:
        self._channel: Any = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)

    async def unary(
        self, method: str, request: Message, response_type: type[MessageT], timeout_s: float
    ) -> MessageT:
        call = self._channel.unary_unary(
            method,
            request_serializer=_serialize,
            response_deserializer=response_type.FromString,
        )
        try:
            response: MessageT | None = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except grpc.aio.UsageError as error:
            raise Unavailable("this connection is closed") from error
        if response is None:  # gRPC could not decode it
            raise OutcomeUnknown(f"the answer to {method} cannot be decoded: is it a node's?")
        return response

    def stream(
        self, method: str, response_type: type[MessageT], request: Message | None = None
    ) -> Stream[MessageT]:
        make = self._channel.stream_stream if request is None else self._channel.unary_stream
        start = make(
            method,
            request_serializer=_serialize,
            response_deserializer=response_type.FromString,
        )
        return GrpcStream(start() if request is None else start(request))

    async def close(self) -> None:
        await self._channel.close()


class GrpcStream(Generic[MessageT]):
    def __init__(self, call: Any) -> None:
        self._call = call
        self._cancelled = False

    async def send(self, request: Message) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise await self._ended() from error
        except asyncio.CancelledError as error:
            self._raise_unless_cancelled_here(error)
            raise

    async def receive(self) -> MessageT | None:
        try:
            response: MessageT | None = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise await self._ended() from error
        except asyncio.CancelledError as error:
            self._raise_unless_cancelled_here(error)
            raise
        if response is None:  # gRPC could not decode it
            raise ProtocolError("an answer in the stream cannot be decoded: is it a node's?")
        return None if response is _END else response

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    async def _ended(self) -> QuorumlogError:
        """The error for a use after the call's end, which the library reports without its cause."""
        if self._call.done() and not self._cancelled:
            code, details = await self._call.code(), await self._call.details()
            return Unavailable(f"the stream has ended: {details or code.name}")
        return Unavailable("the stream is cancelled")

    def _raise_unless_cancelled_here(self, error: asyncio.CancelledError) -> None:
        # The library reports a cancelled call as CancelledError too: without the distinction a
        # broken stream would look to its task as if the task itself had been cancelled.
        task = asyncio.current_task()
        if self._call.done() and (task is None or not task.cancelling()):
            raise Unavailable("the stream is cancelled") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
