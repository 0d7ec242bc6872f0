"""Leaders go back to where they are preferred: when, how many at a time, and never for ever."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

from quorumlog.broker.balance import (
    FIRST_PATIENCE_S,
    MAX_PATIENCE_S,
    MAX_TRANSFERS,
    BalanceConfig,
    LeaderBalance,
)
from quorumlog.broker.topics import NodeInfo, PartitionInfo, Standing
from quorumlog.errors import DiskFull
from quorumlog.ports import Member, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.types import GroupId, Index, NodeId

ME, OTHER, THIRD = NodeId("me"), NodeId("other"), NodeId("third")
NODES = (ME, OTHER, THIRD)
SETTLE_S = 10.0


@dataclass
class Progress:
    match_index: Index


class Replica:
    """As much of one as the balance looks at."""

    def __init__(self, group: GroupId) -> None:
        self.group = group
        self.serving = True
        self.transferring = False
        self.matches = {OTHER: 5, THIRD: 5}
        self.answering = {OTHER, THIRD}
        self.last_index = Index(5)
        self.voters = NODES
        self.handed_to: list[NodeId] = []
        self.error: Exception | None = None

    @property
    def core(self) -> "Replica":
        return self

    @property
    def log(self) -> "Replica":
        return self

    @property
    def leadership(self) -> "Replica":
        return self

    @property
    def members(self) -> Members:
        return Members(self.voters)

    def progress_of(self, peer: NodeId) -> Progress | None:
        return Progress(Index(self.matches[peer])) if peer in self.matches else None

    def answers(self, peer: NodeId) -> bool:
        return peer in self.answering

    def transfer_leadership(self, target: NodeId) -> None:
        if self.error is not None:
            raise self.error
        self.handed_to.append(target)
        self.serving = False


@dataclass
class World:
    """The host, the metadata, the membership and the clock of one node, all in one."""

    replicas: dict[GroupId, Replica] = field(default_factory=dict)
    partitions: dict[GroupId, PartitionInfo] = field(default_factory=dict)
    infos: dict[NodeId, NodeInfo] = field(
        default_factory=lambda: {node: NodeInfo(node, node, f"{node}:1", "0") for node in NODES}
    )
    states: dict[NodeId, MemberState] = field(
        default_factory=lambda: dict.fromkeys(NODES, MemberState.ALIVE)
    )
    patience_s: float = 0.0
    heard: set[NodeId] = field(default_factory=lambda: {OTHER, THIRD})
    now: float = 100.0

    def add(self, number: int, preferred: NodeId = OTHER) -> Replica:
        """A group that this node leads."""
        group = GroupId(number)
        others = tuple(node for node in NODES if node != preferred)
        self.partitions[group] = PartitionInfo(number, group, (preferred, *others))
        self.replicas[group] = Replica(group)
        return self.replicas[group]

    def hears(self, node: NodeId) -> bool:
        return node in self.heard

    def node(self, node: NodeId) -> NodeInfo | None:
        return self.infos.get(node)

    def nodes(self) -> list[NodeInfo]:
        return list(self.infos.values())

    def group(self, group: GroupId) -> PartitionInfo | None:
        return self.partitions.get(group)

    def members(self) -> list[Member]:
        return [Member(node, "", 0, state, {"id": node}) for node, state in self.states.items()]

    def monotonic_s(self) -> float:
        return self.now


def make() -> tuple[World, LeaderBalance]:
    world = World()
    anything = cast(Any, world)
    balance = LeaderBalance(
        node_id=ME,
        host=anything,
        metadata=anything,
        membership=anything,
        clock=anything,
        config=BalanceConfig(settle_s=SETTLE_S),
    )
    return world, balance


def settled() -> tuple[World, LeaderBalance]:
    """Everybody has been there for long."""
    world, balance = make()
    assert balance.run_once() == 0
    world.now += SETTLE_S
    return world, balance


def test_a_leader_hands_over_to_the_first_replica_once_that_has_been_there_for_a_while() -> None:
    world, balance = make()
    replica = world.add(1)
    assert balance.run_once() == 0
    world.now += SETTLE_S - 0.1
    assert balance.run_once() == 0
    world.now += 0.1
    assert balance.run_once() == 1
    assert replica.handed_to == [OTHER]


def test_a_leader_that_is_preferred_stays() -> None:
    world, balance = settled()
    world.add(1, preferred=ME)
    assert balance.run_once() == 0


def test_a_node_that_came_and_went_has_to_be_there_for_as_long_again() -> None:
    world, balance = settled()
    replica = world.add(1)
    world.heard.discard(OTHER)
    assert balance.run_once() == 0
    world.heard.add(OTHER)
    world.states[OTHER] = MemberState.SUSPECT
    assert balance.run_once() == 0
    world.states[OTHER] = MemberState.ALIVE
    balance.run_once()
    world.now += SETTLE_S - 0.1
    assert balance.run_once() == 0
    world.now += 0.1
    assert balance.run_once() == 1
    assert replica.handed_to == [OTHER]


def test_who_has_not_got_the_whole_log_is_waited_for() -> None:
    world, balance = settled()
    replica = world.add(1)
    replica.matches[OTHER] = 4
    assert balance.run_once() == 0
    replica.matches[OTHER] = 5
    assert balance.run_once() == 1


def test_who_has_the_group_not_open_yet_is_waited_for() -> None:
    world, balance = settled()
    replica = world.add(1)
    replica.answering.discard(OTHER)
    assert balance.run_once() == 0
    replica.answering.add(OTHER)
    assert balance.run_once() == 1


def test_who_is_no_voter_yet_is_waited_for() -> None:
    world, balance = settled()
    world.add(1).voters = (ME, THIRD)
    assert balance.run_once() == 0


def test_a_node_that_drains_is_passed_over() -> None:
    world, balance = settled()
    world.infos[OTHER] = replace(world.infos[OTHER], standing=Standing.DRAINING)
    mine = world.add(1)  # replicas: other, me, third
    assert balance.run_once() == 0
    assert mine.handed_to == []


def test_a_node_that_drains_itself_gives_nothing_by_this() -> None:
    world, balance = settled()
    world.infos[ME] = replace(world.infos[ME], standing=Standing.DRAINING)
    world.add(1)
    assert balance.run_once() == 0


def test_a_leader_whose_disk_is_full_is_left_alone() -> None:
    world, balance = settled()
    world.add(1).error = DiskFull("no space")
    second = world.add(2)
    assert balance.run_once() == 1
    assert second.handed_to == [OTHER]


def test_only_a_few_go_in_one_turn() -> None:
    world, balance = settled()
    for number in range(2 * MAX_TRANSFERS + 1):
        world.add(number)
    assert [balance.run_once() for _ in range(4)] == [MAX_TRANSFERS, MAX_TRANSFERS, 1, 0]


def test_while_nodes_keep_each_other_waiting_one_goes_in_a_turn() -> None:
    world, balance = settled()
    for number in range(2 + MAX_TRANSFERS):
        world.add(number)
    world.patience_s = 0.1
    assert [balance.run_once(), balance.run_once()] == [1, 1]
    world.patience_s = 0.0
    assert balance.run_once() == MAX_TRANSFERS


def test_who_gives_back_what_it_was_given_is_left_alone_for_longer_each_time() -> None:
    world, balance = settled()
    replicas = [world.add(number) for number in range(MAX_TRANSFERS)]
    times: list[float] = []
    for _ in range(20_000):
        if balance.run_once():
            times.append(world.now)
            for replica in replicas:
                replica.serving = True  # back at once, its disk is too slow
        world.now += 1.0
    waits = [round(later - earlier) for earlier, later in pairwise(times)]
    assert waits[:4] == [21, 41, 81, 161]
    assert max(waits) == MAX_PATIENCE_S + 1


def test_many_groups_that_come_back_at_once_count_as_one_time() -> None:
    world, balance = settled()
    replicas = [world.add(number) for number in range(2 * MAX_TRANSFERS)]
    assert [balance.run_once(), balance.run_once()] == [MAX_TRANSFERS, MAX_TRANSFERS]
    for replica in replicas:
        replica.serving = True
    world.now += 1.0
    assert balance.run_once() == 0
    world.now += 2 * SETTLE_S
    assert balance.run_once() == MAX_TRANSFERS


def test_one_hand_over_of_many_that_fails_keeps_no_other_waiting_and_is_tried_again() -> None:
    world, balance = settled()
    replicas = [world.add(number) for number in range(3 * MAX_TRANSFERS)]
    assert balance.run_once() == MAX_TRANSFERS
    replicas[0].serving = True
    begun = []
    for _ in range(4):
        world.now += 1.0
        begun.append(balance.run_once())
    assert begun == [MAX_TRANSFERS, MAX_TRANSFERS, 0, 0]
    world.now += FIRST_PATIENCE_S
    assert balance.run_once() == 1
    assert replicas[0].handed_to == [OTHER, OTHER]


def test_a_group_that_alone_always_comes_back_is_handed_over_more_and_more_rarely() -> None:
    world, balance = settled()
    replica = world.add(0)
    times: list[float] = []
    for turn in range(1, 200):
        balance.run_once()
        if not replica.serving:
            times.append(world.now)
            replica.serving = True
        world.add(turn)  # which go and stay there
        world.now += 1.0
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == [6, 11, 21, 41, 81]


def test_who_lost_its_leaders_by_dying_is_trusted_as_before() -> None:
    world, balance = settled()
    replica = world.add(1)
    assert balance.run_once() == 1
    world.heard.discard(OTHER)
    world.now += 1.0
    balance.run_once()
    replica.serving = True
    world.heard.add(OTHER)
    world.now += 1.0
    assert balance.run_once() == 0
    world.now += SETTLE_S
    assert balance.run_once() == 1
