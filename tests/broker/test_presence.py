"""What is put on record of nodes that left, failed and came back, and what is not."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.gossip_view import GossipView
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_command import raise_for
from quorumlog.broker.presence import FAILED_AFTER_S, LEFT_AFTER_S, PresenceKeeper
from quorumlog.broker.silence import SilenceWatch
from quorumlog.broker.topics import Presence
from quorumlog.errors import InvalidArgument, NodeRemoved, NotFound
from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId

NODES = [NodeId(name) for name in ("a", "b", "c")]
ME, OTHER = NODES[0], NODES[2]
WALL_MS = 1_700_000_000_000


@dataclass
class World:
    """The metadata's leader ``a``, what it hears and what gossip says."""

    metadata: MetadataState = field(default_factory=MetadataState)
    now: float = 100.0
    term: int = 1
    serving: bool = True
    silent: dict[NodeId, float] = field(default_factory=dict)
    states: dict[NodeId, MemberState] = field(
        default_factory=lambda: dict.fromkeys(NODES, MemberState.ALIVE)
    )
    cluster: str = "c"
    committed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def core(self) -> "World":
        return self

    def hears(self, node: NodeId) -> bool:
        return node not in self.silent

    def heard_at(self, node: NodeId) -> float:
        return self.silent.get(node, self.now)

    def monotonic_s(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return WALL_MS + int(self.now * 1000)

    def members(self) -> list[Member]:
        return [
            Member(node, node, 1, state, {"id": node, "cluster": self.cluster})
            for node, state in self.states.items()
        ]

    def do(self, command: pb.Command) -> None:
        encoded = command.SerializeToString()
        raise_for(self.metadata.apply(encoded, self.metadata.applied_index + 1))

    async def propose(self, command: pb.Command) -> None:
        self.committed.append((command.note_presence.node, command.note_presence.presence))
        self.do(command)

    def record(self, node: NodeId = OTHER) -> tuple[Presence, int]:
        """With the time of the world when it was last heard."""
        found = self.metadata.node(node)
        assert found is not None
        since_ms = found.absent_since_ms
        return found.presence, (since_ms - WALL_MS) // 1000 if since_ms else 0


def make() -> tuple[World, PresenceKeeper]:
    world = World()
    for node in NODES:
        info = pb.Node(id=node, name=f"node-{node}", address=f"{node}:7400", version="1")
        world.do(pb.Command(register_node=pb.RegisterNode(node=info)))
    watch = SilenceWatch(
        node_id=ME,
        metadata=world.metadata,
        replica=lambda: cast(Any, world),
        hears=world.hears,
        clock=cast(Any, world),
    )
    keeper = PresenceKeeper(
        metadata=world.metadata,
        gossip=GossipView(cast(Any, world), lambda: "c"),
        replica=lambda: cast(Any, world),
        watch=watch,
        propose=world.propose,
        clock=cast(Any, world),
    )
    return world, keeper


async def wait(world: World, keeper: PresenceKeeper, seconds: float) -> None:
    """As the controller does: a look a second."""
    for _ in range(int(seconds)):
        world.now += 1.0
        await keeper.tend()


async def lose(world: World, keeper: PresenceKeeper, state: MemberState | None) -> float:
    """The last sign of life of ``c``, and what gossip says of it then; its time."""
    await wait(world, keeper, 2)
    world.silent[OTHER] = world.now
    del world.states[OTHER]
    if state is not None:
        world.states[OTHER] = state
    return world.now


@pytest.mark.parametrize("state", [MemberState.FAILED, None], ids=["failed", "forgotten"])
async def test_a_node_that_failed_is_on_record_once_the_leader_has_missed_it_for_long(
    state: MemberState | None,
) -> None:
    world, keeper = make()
    last_heard = await lose(world, keeper, state)
    await wait(world, keeper, FAILED_AFTER_S - 1)
    assert world.committed == []
    await wait(world, keeper, 1)
    assert world.record() == (Presence.FAILED, last_heard)
    await wait(world, keeper, 100)
    assert world.committed == [(OTHER, "failed")]


async def test_a_node_that_left_is_on_record_soon() -> None:
    world, keeper = make()
    last_heard = await lose(world, keeper, MemberState.LEFT)
    await wait(world, keeper, LEFT_AFTER_S - 1)
    assert world.committed == []
    await wait(world, keeper, 100)
    assert world.record() == (Presence.LEFT, last_heard)
    # Gossip forgets it in the end: it has left all the same.
    del world.states[OTHER]
    await wait(world, keeper, 100)
    assert world.committed == [(OTHER, "left")]


async def test_one_that_failed_and_is_then_called_gone_has_left_since_the_same_time() -> None:
    world, keeper = make()
    last_heard = await lose(world, keeper, MemberState.FAILED)
    await wait(world, keeper, 100)
    world.states[OTHER] = MemberState.LEFT  # serf force-leave
    # Of a leader that never heard it.
    world.term = 2
    await wait(world, keeper, 10)
    assert world.record() == (Presence.LEFT, last_heard)
    assert world.committed == [(OTHER, "failed"), (OTHER, "left")]


@pytest.mark.parametrize("state", [MemberState.ALIVE, MemberState.SUSPECT])
async def test_a_node_that_gossip_sees_running_is_not_gone(state: MemberState) -> None:
    world, keeper = make()
    await lose(world, keeper, state)
    await wait(world, keeper, 10 * FAILED_AFTER_S)
    assert world.committed == []


@pytest.mark.parametrize("state", [MemberState.FAILED, MemberState.LEFT])
async def test_gossip_alone_puts_nothing_on_record(state: MemberState) -> None:
    world, keeper = make()
    world.states[OTHER] = world.states[ME] = state
    await wait(world, keeper, 10 * FAILED_AFTER_S)
    assert world.committed == []


async def test_a_member_of_another_cluster_hides_no_failure() -> None:
    world, keeper = make()
    await lose(world, keeper, MemberState.ALIVE)
    world.cluster = "another"
    await wait(world, keeper, FAILED_AFTER_S)
    assert world.committed == [(OTHER, "failed")]


async def test_a_beat_that_is_late_is_neither_a_failure_nor_a_farewell() -> None:
    world, keeper = make()
    world.states[OTHER] = MemberState.LEFT
    for _ in range(20):
        world.silent[OTHER] = world.now
        await wait(world, keeper, 2)
        del world.silent[OTHER]
        await wait(world, keeper, 1)
    assert world.committed == []


@pytest.mark.parametrize("state", MemberState)
async def test_who_is_heard_again_is_back_whatever_gossip_says(state: MemberState) -> None:
    world, keeper = make()
    await lose(world, keeper, MemberState.FAILED)
    await wait(world, keeper, FAILED_AFTER_S)
    del world.silent[OTHER]
    world.states[OTHER] = state
    await wait(world, keeper, 1)
    assert world.record() == (Presence.PRESENT, 0)
    await wait(world, keeper, 100)
    assert world.committed == [(OTHER, "failed"), (OTHER, "present")]


async def test_a_leader_is_back_itself() -> None:
    world, keeper = make()
    noted = pb.NotePresence(node=ME, presence="failed", absent_since_ms=1)
    world.do(pb.Command(note_presence=noted))
    await wait(world, keeper, 1)
    assert world.record(ME) == (Presence.PRESENT, 0)


async def test_a_new_leader_or_one_that_stood_still_has_to_miss_a_node_itself() -> None:
    world, keeper = make()
    await lose(world, keeper, MemberState.FAILED)
    await wait(world, keeper, FAILED_AFTER_S - 1)
    world.term = 2
    await wait(world, keeper, FAILED_AFTER_S - 1)
    world.now += 60
    await wait(world, keeper, FAILED_AFTER_S)
    assert world.committed == []
    world.serving = False
    await wait(world, keeper, FAILED_AFTER_S)
    world.serving = True
    await wait(world, keeper, FAILED_AFTER_S)
    assert world.committed == []
    await wait(world, keeper, 1)
    assert world.committed == [(OTHER, "failed")]


def test_a_record_of_an_unknown_or_removed_node_or_of_another_kind_is_refused() -> None:
    world, _ = make()

    def note(node: str, presence: str = "failed") -> None:
        message = pb.NotePresence(node=node, presence=presence, absent_since_ms=1)
        world.do(pb.Command(note_presence=message))

    with pytest.raises(NotFound):
        note("z")
    with pytest.raises(InvalidArgument, match="present, left or failed"):
        note("b", "dead")
    world.do(pb.Command(remove_node=pb.RemoveNode(node="c", candidates=["a", "b"])))
    world.do(pb.Command(forget_node=pb.ForgetNode(node="c")))
    with pytest.raises(NodeRemoved):
        note("c")
    assert world.record(NodeId("b")) == (Presence.PRESENT, 0)
