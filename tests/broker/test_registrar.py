"""The registrar: gossip proposes nodes, and what it proposes is asked for before it is believed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.claim_check import ASK_AGAIN_S, MAX_ASKED, ClaimCheck
from quorumlog.broker.gossip_view import GossipView
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.registrar import Registrar
from quorumlog.errors import Unavailable
from quorumlog.ports import Member, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId

ME = NodeId("a")


class Gossip:
    def __init__(self, *members: Member) -> None:
        self.seen = list(members)

    def members(self) -> list[Member]:
        return self.seen

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def on_change(self, handler: Callable[[Member], None]) -> None: ...


def member(
    name: str,
    node: str,
    state: MemberState = MemberState.ALIVE,
    cluster: str = "c",
    address: str = "",
) -> Member:
    tags = {"id": node, "cluster": cluster, "rpc": address or f"{name}:7400", "ver": "1"}
    return Member(name, name, 7946, state, tags)


@dataclass
class World:
    """The metadata's leader ``a`` with what it sees, and the processes at the addresses."""

    gossip: Gossip
    metadata: MetadataState = field(default_factory=MetadataState)
    now: float = 0.0
    processes: dict[str, Introduction] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)

    def monotonic_s(self) -> float:
        return self.now

    def run(self, address: str, node: str, cluster: str = "c", says: str = "") -> None:
        """Have a process of ``node`` at ``address``."""
        self.processes[address] = Introduction(NodeId(node), cluster, says or address)

    async def identify(self, address: str) -> Introduction:
        self.asked.append(address)
        if address not in self.processes:
            raise Unavailable("connection refused")
        return self.processes[address]

    async def propose(self, command: metadata_pb2.Command) -> None:
        self.registered.append(command.register_node.node.address)
        self.metadata.apply(command.SerializeToString(), self.metadata.applied_index + 1)

    def address(self, node: str) -> str:
        found = self.metadata.node(NodeId(node))
        return found.address if found is not None else ""


def make(*members: Member) -> tuple[World, Registrar]:
    """Every member's process runs where the member says."""
    world = World(Gossip(*members))
    for each in members:
        world.run(each.tags["rpc"], each.tags["id"])

    async def propose_members(members: Members) -> None: ...

    core = SimpleNamespace(
        members=Members((NodeId("a"), NodeId("b"))),
        members_index=0,
        commit_index=1,
        leadership=SimpleNamespace(),
    )
    replica: Any = SimpleNamespace(
        serving=True, core=core, propose_members=propose_members, answers=lambda node: True
    )
    registrar = Registrar(
        node_id=ME,
        metadata=world.metadata,
        gossip=GossipView(world.gossip, lambda: "c"),
        check=ClaimCheck("c", world.identify, cast(Any, world)),
        replica=lambda: replica,
        propose=world.propose,
    )
    return world, registrar


async def test_a_node_is_registered_once_and_again_when_its_address_changes() -> None:
    world, registrar = make(member("one", "a"), member("two", "b"))
    for _ in range(3):
        await registrar.tend()
    assert world.registered == ["one:7400", "two:7400"]
    world.gossip.seen[1] = member("elsewhere", "b")
    world.run("elsewhere:7400", "b")
    for _ in range(3):
        await registrar.tend()
    assert world.address("b") == "elsewhere:7400"
    assert len(world.registered) == 3
    # The node's own word is its own; others are asked once for each thing they claim.
    assert world.asked == ["two:7400", "elsewhere:7400"]


async def test_a_node_that_is_absent_on_record_keeps_its_record_when_it_registers() -> None:
    world, registrar = make(member("one", "a"), member("two", "b"))
    await registrar.tend()
    noted = metadata_pb2.NotePresence(node="b", presence="failed", absent_since_ms=7)
    await world.propose(metadata_pb2.Command(note_presence=noted))
    world.gossip.seen[1] = member("elsewhere", "b")
    world.run("elsewhere:7400", "b")
    await registrar.tend()
    found = world.metadata.node(NodeId("b"))
    assert found is not None
    assert (found.address, found.absent_since_ms) == ("elsewhere:7400", 7)


@pytest.mark.parametrize(
    "process",
    [
        None,
        Introduction(NodeId("x"), "c", "forged:7400"),
        Introduction(NodeId("b"), "another", "forged:7400"),
        Introduction(NodeId("b"), "c", "two:7400"),
    ],
    ids=["nobody answers", "another node", "another cluster", "the node is elsewhere"],
)
async def test_an_address_that_does_not_answer_as_that_node_is_not_taken(
    process: Introduction | None,
) -> None:
    world, registrar = make(member("one", "a"), member("two", "b"))
    await registrar.tend()
    world.gossip.seen[1] = member("two", "b", address="forged:7400")
    if process is not None:
        world.processes["forged:7400"] = process
    for _ in range(3):
        world.now += ASK_AGAIN_S[1]
        await registrar.tend()
    assert "forged:7400" in world.asked
    assert world.address("b") == "two:7400"


@pytest.mark.parametrize(
    "address", ["unix:/tmp/socket", "ipv4:1.2.3.4:1", "host", "h:1/x", "[x]:1"]
)
async def test_what_is_no_address_is_not_even_asked(address: str) -> None:
    world, registrar = make(member("one", "a"))
    world.gossip.seen.append(member("two", "b", address=address))
    world.run(address, "b")
    await registrar.tend()
    assert (world.asked, world.address("b")) == ([], "")


async def test_a_node_that_joins_just_now_is_taken() -> None:
    world, registrar = make(member("one", "a"), member("two", "b"))
    world.run("two:7400", "b", cluster="")
    await registrar.tend()
    assert world.address("b") == "two:7400"


async def test_a_member_of_another_cluster_is_not_looked_at() -> None:
    world, registrar = make(member("one", "a"), member("two", "b", cluster="another"))
    await registrar.tend()
    assert (world.asked, world.registered) == ([], ["one:7400"])


@pytest.mark.parametrize("state", [MemberState.SUSPECT, MemberState.FAILED, MemberState.LEFT])
async def test_who_is_not_alive_proposes_nothing(state: MemberState) -> None:
    world, registrar = make(member("one", "a"), member("two", "b"))
    await registrar.tend()
    world.gossip.seen[1] = member("elsewhere", "b", state)
    world.run("elsewhere:7400", "b")
    await registrar.tend()
    assert world.address("b") == "two:7400"


async def test_two_members_that_claim_one_id_do_not_replace_each_other_for_ever() -> None:
    world, registrar = make(member("one", "a"), member("old", "b"))
    await registrar.tend()
    for name in ("another", "young"):
        world.gossip.seen.append(member(name, "b"))
        world.gossip.seen.sort(key=lambda each: each.name)
        world.run(f"{name}:7400", "b")
        for _ in range(10):
            await registrar.tend()
    assert world.address("b") == "old:7400"
    world.gossip.seen = [
        member("another", "b", MemberState.LEFT),
        member("new", "b"),
        member("old", "b", MemberState.FAILED),
        member("one", "a"),
        member("young", "b", MemberState.FAILED),
    ]
    world.run("new:7400", "b")
    await registrar.tend()
    assert world.registered == ["one:7400", "old:7400", "new:7400"]


@pytest.mark.parametrize("state", [MemberState.ALIVE, MemberState.SUSPECT])
async def test_who_claims_to_be_the_leader_itself_is_not_heard(state: MemberState) -> None:
    world, registrar = make(member("one", "a"))
    await registrar.tend()
    world.gossip.seen.append(member("forged", "a", state))
    world.run("forged:7400", "a")
    await registrar.tend()
    assert (world.registered, world.asked) == (["one:7400"], [])


async def test_a_refused_claim_is_asked_again_less_and_less_often_and_taken_once_it_is_true() -> (
    None
):
    world, registrar = make(member("one", "a"), member("two", "b"))
    del world.processes["two:7400"]
    for _ in range(120):
        await registrar.tend()
        world.now += 1.0
    # At 0, 1, 3, 7, 15, 30, 45, 60, 75, 90 and 105 s.
    assert len(world.asked) == 11
    world.run("two:7400", "b")
    for _ in range(int(ASK_AGAIN_S[1])):
        world.now += 1.0
        await registrar.tend()
    assert world.address("b") == "two:7400"


async def test_a_crowd_of_false_claims_keeps_no_true_one_waiting_for_long() -> None:
    crowd = [member(f"false-{number:03}", f"f{number}") for number in range(10 * MAX_ASKED)]
    world, registrar = make(member("one", "a"), *crowd, member("true", "z"))
    for each in crowd:
        del world.processes[each.tags["rpc"]]
    for look in range(11):
        before = len(world.asked)
        await registrar.tend()
        world.now += 1.0
        assert len(world.asked) - before <= MAX_ASKED, look
    assert world.address("z") == "true:7400"
