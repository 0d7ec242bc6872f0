"""Replication between nodes: one bidirectional gRPC stream of raw frames per pair of nodes.

The node with the smaller id dials. The first message each way says who is there (``Hello``); a
stream of another cluster, and of a second process with an id that is already connected, is
refused.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from quorumlog.api._pb import peer_pb2
from quorumlog.api.channels import PEER_CHANNEL_OPTIONS
from quorumlog.api.frames import FORMAT
from quorumlog.api.peer_link import MessageHandler, PeerLink
from quorumlog.broker.peer_calls import Introduction
from quorumlog.errors import (
    DuplicateNode,
    NodeRemoved,
    ProtocolError,
    QuorumlogError,
    Unavailable,
    WrongCluster,
)
from quorumlog.types import Buffer, GroupId, NodeId

_log = structlog.get_logger()

SERVICE = "quorumlog.peer.v1.Replication"
_METHOD = f"/{SERVICE}/Stream"
_HELLO_TIMEOUT_S = 5.0
_FAREWELL_S = 2.0
"""So long a node that was removed still hears from the others that it was."""
_ALIVE_S = 1.0
"""A stream that carried something within this time has a living process at its other end."""
_BACKOFF_S = (0.1, 1.0)
_REFUSALS: dict[str, type[QuorumlogError]] = {
    error.reason: error
    for error in (DuplicateNode, NodeRemoved, WrongCluster, ProtocolError, Unavailable)
}


class GrpcPeers:
    """A ``PeerTransport`` over gRPC. ``resolve`` tells where a node's endpoint is now."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        process_id: str,
        address: str,
        resolve: Callable[[NodeId], str | None],
        rng: random.Random,
    ) -> None:
        self.cluster_id = ""
        """Set once this node is in a cluster; until then every stream is refused."""
        self.is_removed: Callable[[NodeId], bool] = lambda node: False
        """Whether a node was taken out of the cluster for good: it is refused as well."""
        self.on_removed: Callable[[str], None] = lambda message: None
        """Called when a peer says so of this node."""
        self.patience_s: Callable[[NodeId], float] = lambda peer: 0.0
        """How much longer than usual messages to a peer are under way at present."""
        self._node_id = node_id
        self._process_id = process_id
        self._address = address
        self._resolve = resolve
        self._rng = rng
        self._links: dict[NodeId, PeerLink] = {}
        self._dials: dict[NodeId, asyncio.Task[None]] = {}
        self._handler: MessageHandler = lambda sender, group, payload: None
        self._closed = False

    # -- PeerTransport -------------------------------------------------------------------------

    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None:
        link = self._links.get(peer)
        if link is not None:
            link.send(group, payload)

    def on_message(self, handler: MessageHandler) -> None:
        self._handler = handler

    # -- who to be connected with --------------------------------------------------------------

    def set_peers(self, peers: Iterable[NodeId]) -> None:
        """Keep a stream with each of ``peers``; called whenever they or an address changed.

        One that is not among them any more keeps the stream that it has, and is dialled no more.
        """
        if self._closed:
            return
        peers = {peer for peer in peers if not self.is_removed(peer)}
        for peer in sorted(self._links.keys() - peers):
            if self.is_removed(peer):
                # It is being told; without this it would have to ask.
                asyncio.get_running_loop().call_later(_FAREWELL_S, self._let_go, peer)
            elif peer in self._dials and not self.connected(peer):
                self._let_go(peer)
        for peer in sorted(peers):
            if peer == self._node_id:
                continue
            link = self._link_to(peer)
            if peer < self._node_id:
                continue
            if peer not in self._dials:
                self._dials[peer] = asyncio.create_task(self._keep_dialling(link))
            elif link.connected and link.address not in (None, self._resolve(peer)):
                link.disconnect()

    def _link_to(self, peer: NodeId) -> PeerLink:
        return self._links.setdefault(peer, PeerLink(peer, lambda: self.patience_s(peer)))

    def _let_go(self, peer: NodeId) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            link.disconnect()
        dialling = self._dials.pop(peer, None)
        if dialling is not None:
            dialling.cancel()

    def connected(self, peer: NodeId) -> bool:
        link = self._links.get(peer)
        return link is not None and link.connected

    async def close(self) -> None:
        self._closed = True
        for task in self._dials.values():
            task.cancel()
        for link in self._links.values():
            link.disconnect()
        if self._dials:
            await asyncio.wait(self._dials.values())

    # -- hello ---------------------------------------------------------------------------------

    def hello(self) -> peer_pb2.Hello:
        return peer_pb2.Hello(
            format=FORMAT,
            cluster_id=self.cluster_id,
            node_id=self._node_id,
            process_id=self._process_id,
            address=self._address,
        )

    def introduce(self) -> Introduction:
        """Who this process is, for whoever was told of it by others."""
        return Introduction(self._node_id, self.cluster_id, self._address)

    def check(self, hello: peer_pb2.Hello) -> None:
        """Raise unless the process that says ``hello`` may be this cluster's node of that id."""
        if hello.format != FORMAT:
            raise ProtocolError(
                f"node {hello.node_id} speaks replication format {hello.format}, "
                f"this one {FORMAT}: run releases that share a format"
            )
        if not self.cluster_id:
            raise Unavailable("this node is not in a cluster yet")
        if hello.cluster_id != self.cluster_id:
            raise WrongCluster(
                f"node {hello.node_id} at {hello.address} is of cluster {hello.cluster_id}, "
                f"this one of {self.cluster_id}: two clusters never mix; give it the --join of its "
                "own, or, to have it in this one as a new node, another data directory"
            )
        if self.is_removed(NodeId(hello.node_id)):
            raise NodeRemoved(
                f"node {hello.node_id} was removed from this cluster: start it with an empty data "
                "directory, and it joins as a new one"
            )
        link = self._links.get(NodeId(hello.node_id))
        now = asyncio.get_running_loop().time()
        taken = hello.node_id == self._node_id or (
            link is not None
            and link.process_id not in ("", hello.process_id)
            and now - link.last_received_s < _ALIVE_S
        )
        if taken and hello.process_id != self._process_id:
            raise DuplicateNode(
                f"another process runs with the node id {hello.node_id}: a data directory "
                "belongs to one node; stop the other one, or start this one with an empty directory"
            )

    def answer(self, hello: peer_pb2.Hello) -> peer_pb2.HelloReply:
        try:
            self.check(hello)
        except QuorumlogError as error:
            return peer_pb2.HelloReply(hello=self.hello(), error=error.reason, message=str(error))
        return peer_pb2.HelloReply(hello=self.hello())

    # -- the two ends of a stream ----------------------------------------------------------------

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What serves the streams that other nodes dial."""
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {"Stream": method})

    async def _serve(self, requests: Any, context: Any) -> None:
        try:
            first = await asyncio.wait_for(context.read(), _HELLO_TIMEOUT_S)
            if first is grpc.aio.EOF:
                return
            hello = peer_pb2.Hello.FromString(first)
        except (TimeoutError, DecodeError) as error:
            _log.warning("peer_sent_no_hello", peer=context.peer(), error=repr(error))
            return
        reply = self.answer(hello)
        await context.write(reply.SerializeToString())
        if reply.error:
            _refused("peer_refused", NodeId(hello.node_id), reply)
            return
        link = self._link_to(NodeId(hello.node_id))
        await self._carry(link, hello.process_id, context)

    async def _keep_dialling(self, link: PeerLink) -> None:
        backoff_s = _BACKOFF_S[0]
        while True:
            address = self._resolve(link.peer)
            if address is not None:
                try:
                    await self._dial(link, address)
                    backoff_s = _BACKOFF_S[0]
                except (grpc.aio.AioRpcError, TimeoutError, QuorumlogError) as error:
                    _log.debug(
                        "peer_unreachable", peer=link.peer, address=address, error=str(error)
                    )
                except (grpc.aio.UsageError, asyncio.InvalidStateError, DecodeError) as error:
                    # A stream that ends within the hello, or another program at that address.
                    _log.warning(
                        "peer_sent_no_hello", peer=link.peer, address=address, error=repr(error)
                    )
            await asyncio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, _BACKOFF_S[1])

    async def _dial(self, link: PeerLink, address: str) -> None:
        async with grpc.aio.insecure_channel(address, options=PEER_CHANNEL_OPTIONS) as channel:
            call = channel.stream_stream(_METHOD)()
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                await call.write(self.hello().SerializeToString())
                answer = await call.read()
            if answer is grpc.aio.EOF:
                raise Unavailable("the stream ended before the hello")
            reply = peer_pb2.HelloReply.FromString(answer)
            if reply.error:
                _refused("peer_refused_us", link.peer, reply)
                if reply.error == NodeRemoved.reason:
                    self.on_removed(reply.message)
                raise _REFUSALS.get(reply.error, ProtocolError)(reply.message)
            if reply.hello.node_id != link.peer:
                raise Unavailable(f"{address} is node {reply.hello.node_id} now")
            self.check(reply.hello)
            link.address = address
            try:
                await self._carry(link, reply.hello.process_id, call)
            finally:
                link.address = None

    async def _carry(self, link: PeerLink, process_id: str, stream: Any) -> None:
        async def read() -> bytes | None:
            frame = await stream.read()
            return None if frame is grpc.aio.EOF else frame

        try:
            await link.run(process_id, read, stream.write, self._handler)
        except ProtocolError as error:
            _log.warning("peer_sent_garbage", peer=link.peer, error=str(error))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            _log.debug("peer_stream_broke", peer=link.peer, error=str(error))


def _refused(event: str, peer: NodeId, reply: peer_pb2.HelloReply) -> None:
    """A node that has no cluster yet refuses for a moment; everything else is worth a look."""
    log = _log.debug if reply.error == Unavailable.reason else _log.warning
    log(event, peer=peer, error=reply.message)
