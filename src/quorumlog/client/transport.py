"""The client's port to the network: connections to nodes, calls and streams of messages.

Everything above it is plain asyncio, so a simulator that brings an event loop and a
:class:`Connector` of its own runs the whole client. The real one is
``quorumlog.client.grpc_transport.GrpcConnector``.

Errors are typed (``quorumlog.errors``). ``Unavailable`` of the exact class means that the
connection
failed: the request may or may not have arrived. A handler's own errors (``NotLeader``,
``UnknownTopic``, …) say what happened.
"""

from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound=Message)
ResponseT_co = TypeVar("ResponseT_co", bound=Message, covariant=True)

LOG_SERVICE: Final = "/quorumlog.v1.Log/"
ADMIN_SERVICE: Final = "/quorumlog.v1.Admin/"


class Stream(Protocol[ResponseT_co]):
    """A call that lives: one task may send while another one receives.

    Both raise a typed error once the call has failed, and go on raising it.
    """

    async def send(self, request: Message) -> None:
        """Queue one request; waits while the peer does not take more. Duplex streams only."""
        ...

    async def receive(self) -> ResponseT_co | None:
        """The next response, or None when the peer has ended the stream in order."""
        ...

    def cancel(self) -> None:
        """Give the call up, at once and without waiting; a pending receive ends with an error."""
        ...


class Connection(Protocol):
    """A way to one node. It connects when first used and again after it broke."""

    async def unary(
        self, method: str, request: Message, response_type: type[MessageT], timeout_s: float
    ) -> MessageT:
        """Call ``method`` (``/package.Service/Name``) and return its response.

        Raises:
            OutcomeUnknown: there was no answer within ``timeout_s``.
        """
        ...

    def stream(
        self, method: str, response_type: type[MessageT], request: Message | None = None
    ) -> Stream[MessageT]:
        """Open a stream: of responses to ``request``, or duplex when there is none."""
        ...

    async def close(self) -> None:
        """Break what is under way and release the connection; idempotent."""
        ...


class Connector(Protocol):
    def connect(self, address: str) -> Connection:
        """A connection to ``host:port``. Does not wait and does not fail: its calls do."""
        ...
