"""Requests between nodes: what a failed call says of whether the request was carried out."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from quorumlog.api._pb import peer_pb2, peer_pb2_grpc
from quorumlog.api.peer_calls import GrpcPeerCalls
from quorumlog.api.peer_service import PeerPort, PeerService
from quorumlog.api.status import CallContext, abort
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.peer_calls import Introduction
from quorumlog.errors import (
    NotLeader,
    OutcomeUnknown,
    ProtocolError,
    QuorumlogError,
    Unavailable,
)
from quorumlog.types import GroupId, NodeId

LEADER = NodeId("leader")


class Leader(peer_pb2_grpc.PeerServicer):
    """Counts what it applies; then answers, refuses, or is cut off before it can answer."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []
        self.error: QuorumlogError | None = None
        self.cut_off = False

    async def Propose(
        self, request: peer_pb2.ProposeRequest, context: CallContext
    ) -> peer_pb2.ProposeReply:
        if self.error is not None:
            await abort(context, self.error)
        self.applied.append(request.command)
        if self.cut_off:
            # What gRPC itself says when a connection breaks: no details of ours.
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return peer_pb2.ProposeReply(result=b"done")


@asynccontextmanager
async def calls_to(leader: Leader) -> AsyncIterator[GrpcPeerCalls]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    peer_pb2_grpc.add_PeerServicer_to_server(leader, server)
    await server.start()
    calls = GrpcPeerCalls(lambda node: f"127.0.0.1:{port}")
    try:
        yield calls
    finally:
        await calls.close()
        await server.stop(0)


async def test_a_command_is_answered() -> None:
    leader = Leader()
    async with calls_to(leader) as calls:
        assert await calls.propose(LEADER, b"command") == b"done"
    assert leader.applied == [b"command"]


async def test_a_connection_that_breaks_after_the_command_was_sent_leaves_its_outcome_open() -> (
    None
):
    leader = Leader()
    leader.cut_off = True
    async with calls_to(leader) as calls:
        with pytest.raises(OutcomeUnknown):
            await calls.propose(LEADER, b"command")
    assert leader.applied == [b"command"]


@pytest.mark.parametrize("error", [NotLeader(), Unavailable("no cluster here yet")])
async def test_a_refusal_of_the_leader_itself_says_that_nothing_changed(
    error: QuorumlogError,
) -> None:
    leader = Leader()
    leader.error = error
    async with calls_to(leader) as calls:
        with pytest.raises(type(error)):
            await calls.propose(LEADER, b"command")
    assert leader.applied == []


@asynccontextmanager
async def another_program(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that answers ``answer`` to everything."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            async def respond(request: bytes, context: object) -> bytes:
                return answer

            return grpc.unary_unary_rpc_method_handler(respond)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_the_groups_that_a_node_leads_are_told_as_it_sees_them() -> None:
    led = {
        GroupId(0): LedGroup(7, (NodeId("a"), NodeId("b"))),
        GroupId(1 << 40): LedGroup(9, (NodeId("a"),), (NodeId("b"),), frozenset({NodeId("c")})),
    }

    class Port:
        def led_groups(self, groups: Sequence[GroupId]) -> Mapping[GroupId, LedGroup]:
            return {group: led[group] for group in groups if group in led}

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    service = PeerService(cast(PeerPort, Port()))
    peer_pb2_grpc.add_PeerServicer_to_server(service, server)
    await server.start()
    calls = GrpcPeerCalls(lambda node: f"127.0.0.1:{port}" if node == LEADER else None)
    assert await calls.led_groups(LEADER, [*led, GroupId(5)]) == led
    assert await calls.led_groups(LEADER, []) == {}
    with pytest.raises(Unavailable):
        await calls.led_groups(NodeId("unknown"), [GroupId(0)])
    await calls.close()
    await server.stop(0)


async def test_a_node_of_a_release_without_a_question_refuses_it_with_an_error() -> None:
    async with calls_to(Leader()) as calls:
        with pytest.raises(QuorumlogError):
            await calls.led_groups(LEADER, [GroupId(1)])


async def test_who_answers_at_an_address_is_told() -> None:
    introduction = peer_pb2.Introduction(node_id="n", cluster_id="c", address="n:1")
    calls = GrpcPeerCalls(lambda node: None)
    async with another_program(introduction.SerializeToString()) as address:
        assert await calls.identify(address) == Introduction(NodeId("n"), "c", "n:1")
    with pytest.raises(Unavailable):
        await calls.identify(address)
    await calls.close()


async def test_an_answer_that_cannot_be_decoded_is_an_error_of_its_own() -> None:
    """gRPC hands out nothing in its place."""
    async with another_program(b"\xff\xff\xff") as address:
        calls = GrpcPeerCalls(lambda node: address)
        with pytest.raises(ProtocolError, match=address):
            await calls.identify(address)
        with pytest.raises(ProtocolError, match=address):
            await calls.call(address, "BootstrapStatus", peer_pb2.BootstrapQuery())
        with pytest.raises(OutcomeUnknown):
            await calls.propose(LEADER, b"command")
        await calls.close()


async def test_a_leader_that_cannot_be_reached_never_got_the_command() -> None:
    calls = GrpcPeerCalls(lambda node: "127.0.0.1:1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await calls.propose(LEADER, b"command")
    await calls.close()
