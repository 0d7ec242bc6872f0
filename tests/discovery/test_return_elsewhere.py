"""A node that was killed and comes back at another address tells memberlist's agents so that they
believe it: that it has left where it was, then where it is."""

import random
from collections.abc import Callable

import pytest

from fakes.gossip_network import GossipNetwork
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import SendPacket
from quorumlog.discovery.wire.messages import (
    Address,
    Alive,
    Dead,
    MemberRecord,
    PacketMessage,
    PushPull,
    Status,
)
from quorumlog.discovery.wire.packet import decode_packet
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.ports import MemberState

LAN = GossipConfig.lan()
BEFORE: Address = ("10.0.0.9", 7946)
NOW: Address = ("10.0.0.1", 7946)
OTHER: Address = ("10.0.0.2", 7946)


def returned(tags: dict[str, str] | None = None) -> GossipCore:
    return GossipCore(
        name="me",
        address=NOW,
        tags={"id": "one"} if tags is None else tags,
        config=LAN,
        rng=random.Random(1),
        now=0.0,
    )


def hear(node: GossipCore, status: Status, incarnation: int, node_id: str = "one") -> None:
    """A state of a peer that has this node at its address of before."""
    said = Alive("me", incarnation, BEFORE, encode_tags({"id": node_id}))
    other = MemberRecord(Alive("other", 1, OTHER, b""), Status.ALIVE)
    node.receive_push_pull(PushPull((other, MemberRecord(said, status)), True), node_time(node))


def node_time(node: GossipCore) -> float:
    return node.deadline


def said_of_itself(node: GossipCore) -> list[list[PacketMessage]]:
    """Packet by packet until there is no more news."""
    packets: list[list[PacketMessage]] = []
    while about_it := next_packets(node):
        packets += about_it
    return packets


def next_packets(node: GossipCore) -> list[list[PacketMessage]]:
    """What the next packets say of it; nothing once they are about others only."""
    outputs: list[SendPacket] = []
    while not outputs:
        node.tick(node_time(node))
        outputs = [o for o in node.take_output() if isinstance(o, SendPacket)]
    about_it = [
        [m for m in decode_packet(o.data) if isinstance(m, Alive | Dead) and m.name == "me"]
        for o in outputs
    ]
    return [messages for messages in about_it if messages]


@pytest.mark.parametrize("status", [Status.ALIVE, Status.SUSPECT, Status.DEAD])
def test_it_leaves_where_it_was_below_the_word_of_where_it_is(status: Status) -> None:
    node = returned()
    hear(node, status, 5)
    packets = said_of_itself(node)
    assert len(packets) > 1
    for messages in packets:
        here, farewell = messages
        assert isinstance(here, Alive)
        assert isinstance(farewell, Dead)
        assert farewell.left
        assert here.address == NOW
        assert (here.incarnation, farewell.incarnation) == (6, 5)


@pytest.mark.parametrize("node_id", ["another", ""])
def test_another_node_of_the_name_is_not_said_to_leave(node_id: str) -> None:
    node = returned()
    hear(node, Status.ALIVE, 5, node_id)
    hear(node, Status.DEAD, 5, node_id)
    assert not [m for messages in said_of_itself(node) for m in messages if isinstance(m, Dead)]


def test_without_an_id_nothing_is_said_to_leave() -> None:
    node = returned({})
    hear(node, Status.DEAD, 5)
    assert not [m for messages in said_of_itself(node) for m in messages if isinstance(m, Dead)]


def test_nothing_is_said_to_leave_at_the_same_address_or_that_had_left() -> None:
    node = returned()
    word = Alive("me", 5, NOW, encode_tags({"id": "one", "old": "tag"}))
    node.receive_push_pull(PushPull((MemberRecord(word, Status.SUSPECT),), True), 0.0)
    hear(node, Status.LEFT, 5)
    assert not [m for messages in said_of_itself(node) for m in messages if isinstance(m, Dead)]


def test_who_missed_it_is_told_again() -> None:
    node = returned()
    hear(node, Status.ALIVE, 5)
    assert said_of_itself(node)
    assert said_of_itself(node) == []
    hear(node, Status.ALIVE, 5)
    again = said_of_itself(node)
    hear(node, Status.SUSPECT, 5)
    for packets in (again, said_of_itself(node)):
        for here, farewell in packets:
            assert (here, farewell) == (node_word(node), Dead("me", 5, "me"))


def test_an_echo_while_it_is_said_makes_it_no_longer() -> None:
    def farewells(*, echo: bool) -> int:
        node = returned()
        hear(node, Status.ALIVE, 5)
        first = next_packets(node)
        if echo:
            hear(node, Status.ALIVE, 5)
        return sum(
            isinstance(m, Dead) for messages in first + said_of_itself(node) for m in messages
        )

    assert farewells(echo=True) == farewells(echo=False) > 0


def node_word(node: GossipCore) -> Alive:
    [word] = [r.alive for r in node.local_state(join=False).records if r.alive.name == "me"]
    return word


def test_two_processes_of_one_identity_do_not_go_on_declaring_each_other_gone() -> None:
    node = returned()
    for incarnation in (5, 10, 15):
        hear(node, Status.ALIVE, incarnation)
    said_of_itself(node)
    hear(node, Status.ALIVE, 20)
    assert not [m for messages in said_of_itself(node) for m in messages if isinstance(m, Dead)]


@pytest.mark.parametrize("seed", range(20))
def test_nodes_of_ours_never_see_it_leave(
    make_network: Callable[..., GossipNetwork], seed: int
) -> None:
    network = make_network(seed=seed)
    one, *_, killed = network.start_many(5)
    names = {node.name for node in network.nodes.values()}
    assert network.run_until(lambda: network.all_agree(names), 10.0) is not None
    killed.running = False
    network.run(seed / 10)
    network.start(killed.name, seeds=[one])
    assert network.run_until(lambda: network.all_agree(names), 2.0) is not None
    network.run(30.0)
    assert network.all_know(names)
    states = {state for _, _, name, state in network.trace if name == killed.name}
    assert MemberState.LEFT not in states
