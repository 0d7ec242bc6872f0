"""When the replicas of a node that is not heard are made anew on others, and when not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.gossip_view import LACKS_TAG, GossipView
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_command import raise_for
from quorumlog.broker.replacement import Replacement, Stage
from quorumlog.broker.replacer import MAX_MOVING, STALLED_S, Replacer
from quorumlog.broker.silence import SilenceWatch
from quorumlog.ports import Member, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId

GRACE_S = 60
NODES = [NodeId(name) for name in ("a", "b", "c", "d", "e")]
ME, LOST = NODES[0], NODES[2]


@dataclass
class World:
    """The metadata's leader ``a`` and all that it sees: group 0's replica, gossip, beats, time.

    ``a``, ``b`` and ``c`` vote on the metadata. Orders are applied at once; what they move has
    moved when :meth:`move_all` is called."""

    metadata: MetadataState = field(default_factory=MetadataState)
    now: float = 1000.0
    skew_ms: int = 0
    term: int = 1
    serving: bool = True
    silent: dict[NodeId, float] = field(default_factory=dict)
    """Since when a node is not heard."""
    states: dict[NodeId, MemberState] = field(
        default_factory=lambda: dict.fromkeys(NODES, MemberState.ALIVE)
    )
    voting: tuple[NodeId, ...] = tuple(NODES[:3])
    tags: dict[NodeId, dict[str, str]] = field(default_factory=dict)
    """What a node says of itself besides."""
    given: list[str] = field(default_factory=list)
    """The kinds of the orders."""
    after_order: Callable[[], None] = lambda: None

    @property
    def core(self) -> "World":
        return self

    @property
    def members(self) -> Any:
        return Members(self.voting)

    def hears(self, node: NodeId) -> bool:
        return node not in self.silent

    def heard_at(self, node: NodeId) -> float:
        return self.silent.get(node, self.now)

    def monotonic_s(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000) + self.skew_ms

    def record(self, node: NodeId, since: float) -> None:
        """An earlier leader had it recorded that ``node`` is absent."""
        message = pb.NotePresence(node=node, presence="failed", absent_since_ms=int(since * 1000))
        self.do(pb.Command(note_presence=message))

    def do(self, command: pb.Command) -> pb.Result:
        encoded = command.SerializeToString()
        return raise_for(self.metadata.apply(encoded, self.metadata.applied_index + 1))

    async def propose(self, command: pb.Command) -> pb.Result:
        self.given.append(command.WhichOneof("command") or "")
        result = self.do(command)
        self.after_order()
        return result

    def create(self, topic: str, *replicas: NodeId, partitions: int = 1) -> None:
        message = pb.CreateTopic(
            name=topic, partitions=partitions, replicas=len(replicas), candidates=replicas
        )
        self.do(pb.Command(create_topic=message))

    def lose(self, node: NodeId) -> None:
        self.silent[node] = self.now
        self.states[node] = MemberState.FAILED

    def find(self, node: NodeId) -> None:
        del self.silent[node]
        self.states[node] = MemberState.ALIVE

    def moving(self) -> int:
        return sum(bool(each.wanted) for each in self.partitions())

    def partitions(self) -> list[Any]:
        return [each for topic in self.metadata.topics() for each in topic.partitions]

    def move_all(self) -> None:
        moved = [
            pb.ReplicasMoved.Moved(
                group=each.group, move=each.move, replicas=each.wanted, settled_index=each.move
            )
            for each in self.partitions()
            if each.wanted
        ]
        self.do(pb.Command(replicas_moved=pb.ReplicasMoved(moved=moved)))
        self.voting = self.metadata.voters or self.voting

    def holds(self, node: NodeId) -> int:
        return len(self.metadata.groups_of(node))


class GossipOf:
    def __init__(self, world: World) -> None:
        self._world = world

    def members(self) -> list[Member]:
        states = self._world.states.items()
        return [
            Member(
                node, node, 1, state, self._world.tags.get(node, {}) | {"id": node, "cluster": "c"}
            )
            for node, state in states
        ]


def make(grace_s: int = GRACE_S) -> tuple[World, Replacer]:
    world = World()
    for node in NODES:
        info = pb.Node(id=node, name=f"node-{node}", address=f"{node}:7400", version="1")
        world.do(pb.Command(register_node=pb.RegisterNode(node=info)))
    world.do(pb.Command(set_cluster=pb.SetCluster(replace_failed_after_s=grace_s)))
    replacer = Replacer(
        node_id=ME,
        metadata=world.metadata,
        gossip=GossipView(cast(Any, GossipOf(world)), lambda: "c"),
        replica=lambda: cast(Any, world),
        hears=world.hears,
        watch=SilenceWatch(
            node_id=ME,
            metadata=world.metadata,
            replica=lambda: cast(Any, world),
            hears=world.hears,
            clock=cast(Any, world),
        ),
        propose=world.propose,
        clock=cast(Any, world),
    )
    return world, replacer


async def wait(world: World, replacer: Replacer, seconds: float) -> None:
    """As the controller does: a look a second."""
    for _ in range(int(seconds)):
        world.now += 1.0
        await replacer.tend()


def found(replacer: Replacer, node: NodeId = LOST) -> Replacement:
    (one,) = [each for each in replacer.found if each.node == node]
    return one


async def test_nothing_happens_before_the_time_is_over_and_then_all_moves_a_few_at_a_time() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=6)
    await wait(world, replacer, 2)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    assert world.given == []
    waiting = found(replacer)
    assert (waiting.stage, waiting.remaining_s, waiting.partitions) == (Stage.COUNTING, 1.0, 6)
    await wait(world, replacer, 1)
    assert world.given == ["set_voters"] + ["assign_replicas"] * MAX_MOVING
    assert found(replacer).stage is Stage.MOVING
    await wait(world, replacer, 5)
    assert world.moving() == MAX_MOVING
    for _ in range(3):
        world.move_all()
        await wait(world, replacer, 1)
    assert found(replacer).stage is Stage.REPLACED
    assert world.holds(LOST) == 0
    assert LOST not in world.metadata.voters
    assert len(world.metadata.voters) == 3
    assert all(len(set(each.replicas)) == 3 for each in world.partitions())
    # It is a member still, and nobody is told that it was removed.
    assert world.metadata.node(LOST) is not None


async def test_it_is_off_by_default() -> None:
    assert MetadataState().settings.replace_failed_after_s == 0
    world, replacer = make(grace_s=0)
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, 100)
    assert (world.given, replacer.found) == ([], ())


async def test_one_sign_of_life_begins_the_time_anew() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    # Between two looks, and silent again at the next one.
    world.silent[LOST] = world.now
    await wait(world, replacer, GRACE_S - 1)
    assert world.given == []
    await wait(world, replacer, 1)
    assert world.given


async def test_a_new_leader_counts_by_what_it_heard_itself() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    world.serving = False
    await wait(world, replacer, 1)
    assert replacer.found == ()
    world.serving, world.term = True, 2
    await wait(world, replacer, GRACE_S)
    assert world.given == []
    await wait(world, replacer, 1)
    assert world.given


@pytest.mark.parametrize("skew_s", [0, 10**6])
async def test_a_recorded_absence_stands_for_half_of_the_time_and_no_more(skew_s: int) -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    world.record(LOST, world.now)
    world.now += 10 * GRACE_S  # under other leaders
    # The clock of whoever recorded it may be wrong by anything.
    world.skew_ms = 1000 * skew_s
    await wait(world, replacer, GRACE_S // 2)
    assert world.given == []
    counting = found(replacer)
    assert (counting.stage, counting.remaining_s) == (Stage.COUNTING, 1.0)
    await wait(world, replacer, 1)
    assert world.given


async def test_a_record_of_the_future_lengthens_nothing() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    await wait(world, replacer, 1)
    world.lose(LOST)
    world.record(LOST, world.now + 10**6)
    await wait(world, replacer, GRACE_S)
    assert world.given


async def test_a_recorded_absence_is_over_for_a_leader_that_has_heard_the_node() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.record(LOST, world.now - 10 * GRACE_S)
    await wait(world, replacer, 3)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    assert world.given == []
    assert found(replacer).remaining_s == 1.0


async def test_a_recorded_absence_alone_replaces_nobody() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.record(LOST, world.now - 10 * GRACE_S)
    world.states[LOST] = MemberState.FAILED
    await wait(world, replacer, 3 * GRACE_S)
    assert (world.given, replacer.found) == ([], ())


async def test_a_leader_that_led_again_in_between_counts_anew() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    world.term = 3
    await wait(world, replacer, GRACE_S)
    assert world.given == []


async def test_a_leader_whose_process_stood_still_counts_anew() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    await wait(world, replacer, 2)
    world.lose(LOST)
    world.now += 10 * GRACE_S
    await wait(world, replacer, GRACE_S)
    assert world.given == []
    await wait(world, replacer, 1)
    assert world.given


async def test_gossip_that_sees_it_alive_keeps_it_from_being_replaced() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    for state in (MemberState.ALIVE, MemberState.SUSPECT):
        world.states[LOST] = state
        await wait(world, replacer, GRACE_S + 1)
        assert world.given == []
        assert "look at the network" in found(replacer).reason
    del world.states[LOST]  # forgotten by gossip
    await wait(world, replacer, 1)
    assert world.given


async def test_gossip_alone_replaces_nobody() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.states[LOST] = MemberState.FAILED
    await wait(world, replacer, 3 * GRACE_S)
    assert (world.given, replacer.found) == ([], ())


async def test_with_two_nodes_down_neither_is_replaced() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.create("u", *NODES[2:5])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S - 1)
    world.lose(NODES[4])
    await wait(world, replacer, 2 * GRACE_S)
    assert world.given == []
    assert "node-e cannot be heard either" in found(replacer).reason
    assert "node-c cannot be heard either" in found(replacer, NODES[4]).reason
    world.find(NODES[4])
    await wait(world, replacer, 1)
    assert world.given


async def test_a_node_that_is_down_and_holds_nothing_does_not_count() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(NODES[4])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.given
    assert found(replacer, NODES[4]).stage is Stage.REPLACED
    assert {NODES[4]} & set(world.partitions()[0].target) == set()


async def test_a_second_node_that_fails_half_way_stops_what_has_not_begun() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=10)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    world.move_all()
    world.lose(NODES[3])
    before = len(world.given)
    await wait(world, replacer, 5)
    assert len(world.given) == before
    assert found(replacer).stage is Stage.REFUSED


async def test_a_node_that_is_back_keeps_what_has_not_moved() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=6)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.moving() == MAX_MOVING
    world.find(LOST)
    await wait(world, replacer, 1)
    assert all(set(each.target) == set(NODES[:3]) for each in world.partitions())
    assert replacer.found == ()
    world.move_all()
    await wait(world, replacer, 2 * GRACE_S)
    assert world.moving() == 0
    assert world.holds(LOST) == 6


async def test_who_is_heard_in_the_middle_of_the_orders_loses_no_more() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=4)
    world.lose(LOST)

    def heard() -> None:
        if world.given.count("assign_replicas") == 1 and LOST in world.silent:
            world.find(LOST)

    world.after_order = heard
    await wait(world, replacer, GRACE_S + 1)
    assert world.given.count("assign_replicas") == 1
    await wait(world, replacer, 1)
    assert all(set(each.target) == set(NODES[:3]) for each in world.partitions())


async def test_a_node_that_lost_the_list_of_its_groups_takes_the_vote_and_no_replica() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=2)
    world.tags[NODES[3]] = {LACKS_TAG: "groups"}
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    for partition in world.partitions():
        assert set(partition.target) == {ME, NODES[1], NODES[4]}
    assert set(world.metadata.voters) == {ME, NODES[1], NODES[3]}


async def test_a_voter_that_never_registered_keeps_nothing_but_the_vote_from_moving() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.voting = (ME, LOST, NodeId("z"), NODES[3], NODES[4])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.moving() == 1
    (found,) = replacer.found
    assert "z" in found.reason
    assert "registered" in found.reason
    message = pb.RegisterNode(node=pb.Node(id="z", name="node-z", address="z:7400", version="1"))
    world.do(pb.Command(register_node=message))
    await wait(world, replacer, GRACE_S)
    assert set(world.metadata.voters) == {*world.voting, NODES[1]} - {LOST}


async def test_what_an_operator_ordered_meanwhile_is_not_taken_back() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    group = world.partitions()[0].group
    wanted = ["a", "d", "e"]
    order = pb.AssignReplicas(group=group, wanted=wanted)
    world.do(pb.Command(assign_replicas=order))
    world.find(LOST)
    await wait(world, replacer, 2)
    assert list(world.partitions()[0].target) == wanted


async def test_without_a_spare_node_it_is_refused_with_the_reason() -> None:
    world, replacer = make()
    world.create("t", *NODES)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.given == ["set_voters"]
    world.voting = world.metadata.voters
    await wait(world, replacer, 2)
    refused = found(replacer)
    assert (refused.stage, refused.partitions) == (Stage.REFUSED, 1)
    assert "no other live node can take one of them" in refused.reason


async def test_one_topic_that_cannot_be_moved_does_not_keep_the_others() -> None:
    world, replacer = make()
    world.create("everywhere", *NODES)
    world.create("only", LOST)
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    world.move_all()
    await wait(world, replacer, 12)
    assert world.metadata.partition("t", 0).replicas == ("a", "b", "d") or LOST not in (
        world.metadata.partition("t", 0).replicas
    )
    refused = found(replacer)
    assert (refused.stage, refused.partitions) == (Stage.REFUSED, 2)
    assert world.metadata.partition("only", 0).target == (LOST,)
    assert "1 more" in refused.reason


async def test_a_partition_without_a_majority_is_left_alone() -> None:
    world, replacer = make()
    world.create("t", LOST, NODES[3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.given == ["set_voters"]
    world.voting = world.metadata.voters
    await wait(world, replacer, 1)
    assert "t/0 has no majority of voters that answers (node-c down)" in found(replacer).reason


async def test_the_vote_is_not_given_up_without_somebody_to_take_it() -> None:
    world, replacer = make()
    for node in NODES[3:]:
        world.do(pb.Command(remove_node=pb.RemoveNode(node=node, candidates=NODES)))
        world.do(pb.Command(forget_node=pb.ForgetNode(node=node)))
        del world.states[node]
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert world.given == []
    assert "take its vote" in found(replacer).reason


@pytest.mark.parametrize("is_me", [False, True])
async def test_while_somebody_works_on_a_node_nothing_is_replaced(is_me: bool) -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    if is_me:
        world.do(pb.Command(drain_node=pb.DrainNode(node=LOST)))
        said = "somebody works on it"
    else:
        removal = pb.RemoveNode(node=NODES[4], candidates=NODES)
        world.do(pb.Command(remove_node=removal))
        said = "node-e is being removed"
    world.lose(LOST)
    await wait(world, replacer, 2 * GRACE_S)
    assert world.given == []
    assert said in found(replacer).reason


async def test_a_node_that_is_being_removed_is_left_to_that() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.lose(LOST)
    await wait(world, replacer, 5)
    message = pb.RemoveNode(node=LOST, candidates=[*NODES[:2], *NODES[3:]])
    world.do(pb.Command(remove_node=message))
    await wait(world, replacer, 2 * GRACE_S)
    assert (world.given, replacer.found) == ([], ())


async def test_a_removal_that_is_taken_back_finds_the_replacement_where_it_was() -> None:
    world, replacer = make()
    world.create("t", LOST, NODES[3])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    world.voting = world.metadata.voters
    await wait(world, replacer, 2)
    assert found(replacer).stage is Stage.REFUSED
    message = pb.RemoveNode(node=LOST, candidates=[*NODES[:2], *NODES[3:]])
    world.do(pb.Command(remove_node=message))
    await wait(world, replacer, 1)
    assert replacer.found == ()
    world.do(pb.Command(drain_node=pb.DrainNode(node=LOST, undo=True)))
    await wait(world, replacer, 1)
    assert found(replacer).partitions == 1


async def test_what_cannot_be_taken_back_keeps_nothing_else_from_being_replaced() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3])
    world.create("u", NODES[0], NODES[1], NODES[4])
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 1)
    assert LOST not in world.partitions()[0].target
    world.voting = world.metadata.voters
    world.do(pb.Command(drain_node=pb.DrainNode(node=LOST)))
    world.find(LOST)
    await wait(world, replacer, 1)
    assert replacer.found == ()
    # Where it goes on to, it is not heard of any more.
    taker = next(node for node in world.partitions()[0].target if node in NODES[3:])
    world.lose(taker)
    await wait(world, replacer, 1)
    assert found(replacer, taker).stage is Stage.COUNTING


async def test_orders_that_take_their_time_do_not_begin_the_counting_anew() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=8)

    def pass_time() -> None:
        world.now += 1.5

    world.after_order = pass_time
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 2)
    assert found(replacer).stage is Stage.MOVING
    world.move_all()
    await wait(world, replacer, 1)
    assert world.given.count("assign_replicas") == 8


async def test_an_order_that_takes_too_long_begins_the_counting_anew() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=8)

    def pass_time() -> None:
        world.now += 4

    world.after_order = pass_time
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + 2)
    assert found(replacer).stage is Stage.COUNTING


async def test_moves_that_stand_still_keep_no_others_from_beginning() -> None:
    world, replacer = make()
    world.create("t", *NODES[:3], partitions=MAX_MOVING + 2)
    world.lose(LOST)
    await wait(world, replacer, GRACE_S + STALLED_S - 2)
    assert world.moving() == MAX_MOVING
    await wait(world, replacer, 5)
    assert world.moving() == MAX_MOVING + 2
    # All the same they are taken back when the node is heard again.
    world.find(LOST)
    await wait(world, replacer, 1)
    assert all(set(each.target) == set(NODES[:3]) for each in world.partitions())
