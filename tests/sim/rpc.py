"""gRPC without gRPC: the real servicers and the real client, the network between them simulated.

A call is a :class:`Session` with a pipe each way, whatever its kind. It breaks as a connection
does: when a process dies (its peer hears of it, or not before the keepalive), when a message meets
a cut link, by chance. What the server had done by then stays done.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, Generic

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from fakes.context import Aborted, FakeContext
from quorumlog.client.transport import Connection, MessageT
from quorumlog.errors import OutcomeUnknown, QuorumlogError, Unavailable
from quorumlog.rpc_status import error_from_rpc
from sim.network import SimNetwork
from sim.pipe import Pipe
from sim.process import Process

KEEPALIVE_S: Final = 2.0
"""After so long a silent connection is given up at both ends."""


class RpcServer:
    """What one process serves at one address."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.methods: dict[str, tuple[MethodDescriptor, Any]] = {}

    def add(self, service: ServiceDescriptor, implementation: object) -> None:
        for method in service.methods:
            handler = getattr(implementation, method.name)
            self.methods[f"/{service.full_name}/{method.name}"] = (method, handler)


class RpcFabric:
    """All addresses of the simulated network and the sessions between processes."""

    def __init__(self, network: SimNetwork) -> None:
        self.network = network
        self._servers: dict[str, RpcServer] = {}
        self._sessions: dict[int, Session] = {}
        self.opened = 0
        """Calls so far."""

    def listen(self, address: str, server: RpcServer) -> None:
        self._servers[address] = server
        server.process.on_death(lambda: self._died(server.process))

    def client(self, process: Process) -> "SimConnector":
        process.on_death(lambda: self._died(process))
        return SimConnector(self, process)

    def open(self, client: Process, address: str, method: str) -> "Session":
        self.opened += 1
        session = Session(self, self.opened, client, self._servers.get(address), method)
        self._sessions[self.opened] = session
        return session

    def reset_all(self) -> None:
        """Every connection breaks, as when a middlebox restarts."""
        for session in list(self._sessions.values()):
            delay_s = self.network.delay_s()
            self.network.loop.call_outside(delay_s, session.break_off, "reset")

    def forget(self, number: int) -> None:
        self._sessions.pop(number, None)

    def _died(self, process: Process) -> None:
        """Its connections end: at once by the operating system, or silently with the machine."""
        with_machine = self.network.rng.random() < 0.3
        for session in list(self._sessions.values()):
            if session.involves(process):
                delay_s = KEEPALIVE_S if with_machine else self.network.delay_s()
                self.network.loop.call_outside(
                    delay_s, session.break_off, f"{process.name} is gone"
                )


class Session:
    def __init__(
        self,
        fabric: RpcFabric,
        number: int,
        client: Process,
        server: RpcServer | None,
        method: str,
    ) -> None:
        self._fabric = fabric
        self._number = number
        self._client = client
        self._server = server
        self._method = method
        self._task: asyncio.Task[None] | None = None
        self._breaking = False
        self._broken = False
        network = fabric.network
        self.responses = Pipe(network, server.process.name if server else "", client)
        if server is None or not server.process.alive:
            self.requests = Pipe(network, client.name, client)
            self.responses.finish(Unavailable("connection refused"))
            return
        self.requests = Pipe(network, client.name, server.process)
        if not self._passes(client.name, server.process.name):
            return
        network.loop.call_outside(network.delay_s(), self._start)

    def involves(self, process: Process) -> bool:
        return process is self._client or (
            self._server is not None and process is self._server.process
        )

    # -- the client's end ----------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        if self._server is not None and self._passes(self._client.name, self._server.process.name):
            self.requests.put(message)

    def cancel(self) -> None:
        """The client has no more interest; the server hears of it after a while."""
        self.responses.fail(Unavailable("the stream is cancelled"))
        network = self._fabric.network
        network.loop.call_outside(network.delay_s(), self.break_off, "cancelled by the client")

    def break_off(self, why: str) -> None:
        """Both ends learn that the connection is gone."""
        self._fabric.forget(self._number)
        self._broken = True
        if not self.responses.ended:
            self._note(f"breaks: {why}")
        error = Unavailable(f"the connection broke: {why}")
        self.requests.fail(error)
        self.responses.fail(error)
        if self._task is not None and self._server is not None:
            # In the server's own process: when that one is paused it hears of it later.
            context = self._server.process.context()
            self._fabric.network.loop.call_soon(self._task.cancel, context=context)

    def _passes(self, source: str, target: str) -> bool:
        """Whether a message gets through; where not, the connection is gone with it."""
        network = self._fabric.network
        if network.is_cut(source, target) or network.is_cut(target, source):
            self._break_after(KEEPALIVE_S)
            return False
        if network.quality.stream_break and network.rng.random() < network.quality.stream_break:
            self._break_after(network.delay_s())
            return False
        return not self._breaking

    def _break_after(self, delay_s: float) -> None:
        if not self._breaking:
            self._breaking = True
            self._fabric.network.loop.call_outside(delay_s, self.break_off, "no answer")

    # -- the server's end ----------------------------------------------------------------------

    def _start(self) -> None:
        server = self._server
        if server is None or not server.process.alive or self._broken:
            return
        self._task = self._fabric.network.loop.spawn(
            server.process, self._serve(server), f"{self._method} {self._number}"
        )

    def _note(self, what: str) -> None:
        name = self._method.rpartition("/")[2]
        self._fabric.network.trace.add(f"call {self._number} {name} of {self._client.name} {what}")

    async def _serve(self, server: RpcServer) -> None:
        self._note(f"reaches {server.process.name}")
        descriptor, handler = server.methods[self._method]
        request_type = GetMessageClass(descriptor.input_type)
        context = FakeContext()
        try:
            requests = self._requests(request_type)
            argument = requests if descriptor.client_streaming else await anext(requests)
            if descriptor.server_streaming:
                async with aclosing(handler(argument, context)) as responses:
                    async for response in responses:
                        await self._respond(response)
            else:
                await self._respond(await handler(argument, context))
        except (StopAsyncIteration, _ClientGone):
            return
        except Aborted as status:
            self._end(status)
        else:
            self._end(None)

    async def _requests(self, request_type: type[Message]) -> AsyncIterator[Message]:
        while True:
            try:
                raw = await self.requests.get()
            except Unavailable as error:
                raise _ClientGone from error
            if raw is None:
                return
            yield request_type.FromString(raw)

    async def _respond(self, response: Message) -> None:
        try:
            await self.responses.room()
        except Unavailable as error:
            raise _ClientGone from error
        if self._server is not None and self._passes(self._server.process.name, self._client.name):
            self.responses.put(response.SerializeToString())

    def _end(self, status: Aborted | None) -> None:
        if self._server is not None and self._passes(self._server.process.name, self._client.name):
            self._note(f"ends with {status.details() if status else 'success'}")
            self._fabric.forget(self._number)
            self.responses.finish(status)


class _ClientGone(Exception):
    """The connection broke: there is nobody to answer."""


class SimConnector:
    """The client's ``Connector``, for the client that runs in ``process``."""

    def __init__(self, fabric: RpcFabric, process: Process) -> None:
        self._fabric = fabric
        self._process = process

    def connect(self, address: str) -> Connection:
        return SimConnection(lambda method: self._fabric.open(self._process, address, method))


class SimConnection:
    def __init__(self, open_session: Callable[[str], Session]) -> None:
        self._open = open_session
        self._sessions: list[Session] = []
        self._closed = False

    async def unary(
        self, method: str, request: Message, response_type: type[MessageT], timeout_s: float
    ) -> MessageT:
        session = self._session(method)
        session.send(request.SerializeToString())
        session.requests.finish()
        try:
            async with asyncio.timeout(timeout_s):
                raw = await _receive(session)
        except TimeoutError:
            raise OutcomeUnknown(f"no answer within {timeout_s} s") from None
        finally:
            session.cancel()
        if raw is None:
            raise Unavailable("the call ended without a response")
        return response_type.FromString(raw)

    def stream(
        self, method: str, response_type: type[MessageT], request: Message | None = None
    ) -> "SimStream[MessageT]":
        session = self._session(method)
        if request is not None:
            session.send(request.SerializeToString())
            session.requests.finish()
        return SimStream(session, response_type)

    async def close(self) -> None:
        self._closed = True
        for session in self._sessions:
            session.cancel()

    def _session(self, method: str) -> Session:
        if self._closed:
            raise Unavailable("this connection is closed")
        session = self._open(method)
        self._sessions = [each for each in self._sessions if not each.responses.ended]
        self._sessions.append(session)
        return session


class SimStream(Generic[MessageT]):
    def __init__(self, session: Session, response_type: type[MessageT]) -> None:
        self._session = session
        self._response_type = response_type

    async def send(self, request: Message) -> None:
        await self._session.requests.room()
        if self._session.responses.ended:
            raise Unavailable("the stream has ended")
        self._session.send(request.SerializeToString())

    async def receive(self) -> MessageT | None:
        raw = await _receive(self._session)
        return None if raw is None else self._response_type.FromString(raw)

    def cancel(self) -> None:
        self._session.cancel()


async def _receive(session: Session) -> bytes | None:
    try:
        return await session.responses.get()
    except QuorumlogError as error:
        # A new one each time: a traceback would grow with every receive.
        raise type(error)(str(error)) from None
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
