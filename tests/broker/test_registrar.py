"""The registrar: gossip proposes nodes, and what it proposes comes to rest."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.registrar import Registrar
from quorumlog.ports import Member, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId


class Gossip:
    def __init__(self, *members: Member) -> None:
        self.seen = list(members)

    def members(self) -> list[Member]:
        return self.seen

    def set_tags(self, tags: dict[str, str]) -> None: ...

    def on_change(self, handler: Callable[[Member], None]) -> None: ...


def member(name: str, node: str, state: MemberState = MemberState.ALIVE) -> Member:
    tags = {"id": node, "cluster": "c", "rpc": f"{name}:7400", "expect": "1", "ver": "1"}
    return Member(name, name, 7946, state, tags)


def registrar_of(gossip: Gossip) -> tuple[Registrar, MetadataState, list[str]]:
    """With what it registers: the addresses, in order."""
    metadata = MetadataState()
    registered: list[str] = []

    async def propose(command: metadata_pb2.Command) -> None:
        registered.append(command.register_node.node.address)
        metadata.apply(command.SerializeToString(), metadata.applied_index + 1)

    async def propose_members(members: Members) -> None: ...

    voters = Members((NodeId("a"), NodeId("b")))
    core = SimpleNamespace(
        members=voters, members_index=0, commit_index=1, leadership=SimpleNamespace()
    )
    replica: Any = SimpleNamespace(serving=True, core=core, propose_members=propose_members)
    return Registrar("c", metadata, gossip, lambda: replica, propose), metadata, registered


async def test_a_node_is_registered_once_and_again_when_its_address_changes() -> None:
    gossip = Gossip(member("one", "a"), member("two", "b"))
    registrar, metadata, registered = registrar_of(gossip)
    for _ in range(3):
        await registrar.tend()
    assert registered == ["one:7400", "two:7400"]
    gossip.seen[1] = member("elsewhere", "b")
    for _ in range(3):
        await registrar.tend()
    node = metadata.node(NodeId("b"))
    assert node is not None
    assert node.address == "elsewhere:7400"
    assert len(registered) == 3


async def test_two_members_that_claim_one_id_do_not_replace_each_other_for_ever() -> None:
    gossip = Gossip(member("old", "a"))
    registrar, _, registered = registrar_of(gossip)
    await registrar.tend()
    gossip.seen.append(member("new", "a"))
    for _ in range(10):
        await registrar.tend()
    assert registered == ["old:7400"]
    gossip.seen[0] = member("old", "a", MemberState.FAILED)
    await registrar.tend()
    assert registered == ["old:7400", "new:7400"]
