"""Orders to move replicas, drain and remove nodes: what the metadata make of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import (
    Applied,
    Change,
    NodeForgotten,
    PartitionAdded,
    PartitionChanged,
    PartitionRemoved,
    TopicChanged,
    VotersChanged,
)
from quorumlog.broker.metadata_command import raise_for
from quorumlog.broker.topics import PartitionInfo, Standing
from quorumlog.errors import InvalidArgument, NodeRemoved, NotFound, QuorumlogError, UnsafeChange
from quorumlog.types import GroupId, NodeId

NODES = ("a", "b", "c", "d", "e")


def register(node: str) -> pb.Command:
    message = pb.Node(id=node, name=node, address=f"{node}:7400", version="1")
    return pb.Command(register_node=pb.RegisterNode(node=message))


def create(name: str, partitions: int = 1, replicas: int = 3, nodes: str = "abc") -> pb.Command:
    message = pb.CreateTopic(name=name, partitions=partitions, replicas=replicas, candidates=nodes)
    return pb.Command(create_topic=message)


def resize(name: str, replicas: int, nodes: str = "abcde") -> pb.Command:
    message = pb.AlterTopic(name=name, replicas=replicas, candidates=nodes)
    return pb.Command(alter_topic=message)


def assign(group: int, wanted: str) -> pb.Command:
    return pb.Command(assign_replicas=pb.AssignReplicas(group=group, wanted=wanted))


def report(group: int, move: int, replicas: str, settled_index: int = 9) -> pb.Command:
    each = pb.ReplicasMoved.Moved(
        group=group, move=move, replicas=replicas, settled_index=settled_index
    )
    return pb.Command(replicas_moved=pb.ReplicasMoved(moved=[each]))


def drain(
    node: str, undo: bool = False, replicas: bool = False, nodes: str = "abcde"
) -> pb.Command:
    message = pb.DrainNode(node=node, undo=undo, replicas=replicas, candidates=nodes)
    return pb.Command(drain_node=message)


def remove(
    node: str, replacement: str = "", nodes: str = "abcde", voters: str = "", index: int = 0
) -> pb.Command:
    message = pb.RemoveNode(
        node=node,
        replacement=replacement,
        candidates=nodes,
        voters=voters,
        voters_index=index,
    )
    return pb.Command(remove_node=message)


def forget(node: str) -> pb.Command:
    return pb.Command(forget_node=pb.ForgetNode(node=node))


def set_voters(voters: str, index: int = 0) -> pb.Command:
    return pb.Command(set_voters=pb.SetVoters(voters=voters, voters_index=index))


class Machine:
    """A state with five nodes and a topic ``t`` on a, b and c, fed by commands."""

    def __init__(self) -> None:
        self.state = MetadataState()
        self.changes: list[Change] = []
        self.state.on_change(self.changes.append)
        for node in NODES:
            self.do(register(node))
        self.do(create("t"))

    def do(self, command: pb.Command) -> int:
        self.changes.clear()
        encoded = command.SerializeToString()
        result = self.state.apply(encoded, self.state.applied_index + 1)
        return raise_for(result).index

    @property
    def partition(self) -> PartitionInfo:
        return self.state.partition("t", 0)

    def standing(self, node: str) -> Standing | None:
        known = self.state.node(NodeId(node))
        return known.standing if known is not None else None


@pytest.fixture
def machine() -> Machine:
    return Machine()


def names(nodes: tuple[NodeId, ...]) -> str:
    return "".join(nodes)


def test_an_order_that_was_taken_back_before_anything_was_done_is_settled_where_the_last_one_was(
    machine: Machine,
) -> None:
    machine.do(report(1, machine.do(assign(1, "abd")), "abd", settled_index=12))
    machine.do(assign(1, "abcd"))
    move = machine.do(assign(1, "dba"))
    assert names(machine.partition.passing) == "c"
    machine.do(report(1, move, "abd", settled_index=12))
    done = machine.partition
    assert (names(done.holders), done.wanted, done.settled_index) == ("abd", (), 12)


def test_an_order_leaves_the_replicas_until_the_leader_reports_them_moved(machine: Machine) -> None:
    move = machine.do(assign(1, "ade"))
    moving = machine.partition
    assert machine.changes == [
        TopicChanged(machine.state.topic("t")),
        PartitionChanged(machine.state.topic("t"), moving),
        Applied(move),
    ]
    assert (names(moving.replicas), names(moving.wanted)) == ("abc", "ade")
    assert names(moving.holders) == "abcde"
    machine.do(report(1, move, "eda", settled_index=12))
    done = machine.partition
    assert (names(done.replicas), done.wanted, done.settled_index) == ("ade", (), 12)
    assert names(done.holders) == "ade"
    assert [each.group for _, each in machine.state.groups_of(NodeId("b"))] == []


def test_who_was_wanted_on_the_way_keeps_what_it_has_until_the_report(machine: Machine) -> None:
    machine.do(assign(1, "abd"))
    move = machine.do(assign(1, "abe"))
    assert names(machine.partition.passing) == "d"
    assert names(machine.partition.holders) == "abcde"
    machine.do(report(1, move, "abe"))
    assert names(machine.partition.holders) == "abe"


def test_an_order_back_is_a_move_of_its_own_because_members_may_have_changed(
    machine: Machine,
) -> None:
    machine.do(assign(1, "abd"))
    back = machine.do(assign(1, "abc"))
    assert names(machine.partition.holders) == "abcd"
    machine.do(report(1, back, "abc"))
    assert names(machine.partition.holders) == "abc"


def test_a_report_of_an_older_order_is_void(machine: Machine) -> None:
    first = machine.do(assign(1, "abd"))
    machine.do(assign(1, "abe"))
    third = machine.do(assign(1, "abd"))
    machine.do(report(1, first, "abd"))
    assert names(machine.partition.wanted) == "abd"
    machine.do(report(1, third, "abe"))
    assert names(machine.partition.wanted) == "abd"
    machine.do(report(1, third, "abd"))
    assert machine.partition.wanted == ()


def test_reports_without_an_order_only_say_how_far_the_group_is_settled(machine: Machine) -> None:
    machine.do(report(1, 0, "abc", settled_index=5))
    machine.do(report(1, 0, "abc", settled_index=4))
    assert machine.partition.settled_index == 5
    machine.do(report(1, 0, "abd", settled_index=6))
    machine.do(report(77, 0, "abc"))
    assert machine.partition == PartitionInfo(
        0, GroupId(1), machine.partition.replicas, settled_index=5
    )


def test_another_order_of_the_same_nodes_moves_nobody(machine: Machine) -> None:
    machine.do(assign(1, "cab"))
    assert (names(machine.partition.replicas), machine.partition.wanted) == ("cab", ())
    move = machine.do(assign(1, "ade"))
    machine.do(assign(1, "eda"))
    assert (names(machine.partition.wanted), machine.partition.move) == ("eda", move)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (assign(1, ""), InvalidArgument),
        (assign(1, "aab"), InvalidArgument),
        (assign(1, "abx"), NotFound),
        (assign(7, "abc"), NotFound),
        (drain("x"), NotFound),
        (remove("x"), NotFound),
        (remove("a", replacement="x"), NotFound),
        (remove("a", replacement="a"), InvalidArgument),
        (remove("a", nodes="abc"), UnsafeChange),
        (remove("a", voters="abc"), InvalidArgument),
        (drain("a", replicas=True, nodes="abc"), UnsafeChange),
        (forget("a"), InvalidArgument),
        (set_voters(""), UnsafeChange),
        (set_voters("aa"), InvalidArgument),
        (set_voters("ax"), NotFound),
        (set_voters("ab", index=3), InvalidArgument),
        (resize("t", 6), InvalidArgument),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    machine: Machine, command: pb.Command, error: type[QuorumlogError]
) -> None:
    before = machine.state.snapshot()
    with pytest.raises(error):
        machine.do(command)
    index = machine.state.applied_index
    assert machine.changes == [Applied(index)]
    assert machine.state.snapshot() == before.replace(b'index":6', b'index":7', 1)


def test_a_draining_node_gets_nothing_new_and_keeps_what_it_has(machine: Machine) -> None:
    machine.do(drain("d"))
    machine.do(create("u", partitions=2, replicas=4, nodes="abcde"))
    assert all("d" not in each.replicas for each in machine.state.topic("u").partitions)
    with pytest.raises(InvalidArgument, match="draining"):
        machine.do(assign(1, "abd"))
    assert not machine.state.may_lead(NodeId("d"))
    machine.do(register("d"))
    assert machine.standing("d") is Standing.DRAINING
    machine.do(drain("d", undo=True))
    assert machine.state.may_lead(NodeId("d"))


def test_the_places_of_a_removed_node_go_to_its_replacement_in_their_order(
    machine: Machine,
) -> None:
    machine.do(assign(1, "bac"))
    machine.do(remove("a", replacement="d"))
    assert names(machine.partition.wanted) == "bdc"
    assert machine.standing("a") is Standing.LEAVING


def test_without_a_replacement_those_that_hold_least_take_over(machine: Machine) -> None:
    machine.do(create("u", partitions=3, replicas=1, nodes="d"))
    machine.do(remove("a"))
    assert names(machine.partition.wanted).replace("e", "a") == names(machine.partition.replicas)


def test_a_node_is_forgotten_once_it_holds_nothing_and_never_comes_back(machine: Machine) -> None:
    move = machine.do(remove("a", replacement="d"))
    with pytest.raises(InvalidArgument, match="replicas still"):
        machine.do(forget("a"))
    machine.do(report(1, move, names(machine.partition.wanted)))
    machine.do(forget("a"))
    assert any(isinstance(change, NodeForgotten) for change in machine.changes)
    assert machine.state.is_removed(NodeId("a"))
    machine.do(forget("a"))
    machine.do(remove("a"))
    for command in (register("a"), assign(1, "abc"), set_voters("ab")):
        with pytest.raises(NodeRemoved):
            machine.do(command)
    with pytest.raises(InvalidArgument):
        machine.do(create("u", replicas=3, nodes="abc"))


def test_a_voter_of_the_metadata_goes_with_the_voters_that_replace_it(machine: Machine) -> None:
    first = machine.do(set_voters("abc"))
    assert VotersChanged() in machine.changes
    with pytest.raises(UnsafeChange, match="last voter"):
        machine.do(remove("a", index=first))
    with pytest.raises(InvalidArgument, match="at the same time"):
        machine.do(remove("a", voters="bcd", index=0))
    second = machine.do(remove("a", voters="bcd", index=first))
    assert (names(machine.state.voters), machine.state.voters_index) == ("bcd", second)
    machine.do(remove("a", voters="bcd", index=first))
    with pytest.raises(InvalidArgument, match="being removed"):
        machine.do(set_voters("abcd", index=machine.state.voters_index))


def test_more_replicas_go_to_who_holds_least_and_fewer_leave_the_dead_first(
    machine: Machine,
) -> None:
    machine.do(create("u", replicas=1, nodes="d"))
    machine.do(resize("t", 4))
    assert names(machine.partition.target)[:3] == names(machine.partition.replicas)
    assert names(machine.partition.target)[3:] == "e"
    assert machine.state.topic("t").replicas == 4
    alive = names(machine.partition.replicas)[1:]
    machine.do(resize("t", 2, nodes=alive))
    assert names(machine.partition.target) == alive


nodes = st.sampled_from([*NODES, "x"])
some = st.lists(st.sampled_from(NODES), max_size=4).map("".join)
small = st.integers(0, 40)
commands = st.one_of(
    st.builds(register, nodes),
    st.builds(create, st.sampled_from("tuv"), st.integers(1, 3), st.integers(1, 3), some),
    st.builds(resize, st.sampled_from("tuv"), st.integers(0, 4), some),
    st.builds(assign, st.integers(1, 5), some),
    st.builds(report, st.integers(1, 5), small, some, small),
    st.builds(drain, nodes, st.booleans(), st.booleans(), some),
    st.builds(remove, nodes, st.sampled_from(["", "d", "e"]), some, some, small),
    st.builds(forget, nodes),
    st.builds(set_voters, some, small),
    st.just("report what is wanted"),
)


def true_report(state: MetadataState) -> pb.Command:
    """What the leaders of all partitions that move would say in the end."""
    moved = [
        pb.ReplicasMoved.Moved(
            group=each.group,
            move=each.move,
            replicas=each.target,
            settled_index=state.applied_index + 100,
        )
        for topic in state.topics()
        for each in topic.partitions
        if each.wanted
    ]
    return pb.Command(replicas_moved=pb.ReplicasMoved(moved=moved))


@given(st.lists(commands, max_size=40), st.integers(0, 40))
def test_in_any_order_of_commands_nobody_who_may_be_a_member_is_let_go(
    script: list[pb.Command | str], cut: int
) -> None:
    machine, copy = Machine(), MetadataState()
    copy.restore(machine.state.snapshot())
    for number, each in enumerate(script):
        state = machine.state
        command = each if isinstance(each, pb.Command) else true_report(state)
        before = {p.group: p for topic in state.topics() for p in topic.partitions}
        encoded = command.SerializeToString()
        index = state.applied_index + 1
        if number == cut:
            copy = MetadataState()
            copy.restore(state.snapshot())
        assert state.apply(encoded, index) == copy.apply(encoded, index)
        for topic in state.topics():
            for partition in topic.partitions:
                check_partition(state, partition, before.get(partition.group), command)
        assert not {node.id for node in state.nodes()} & state.removed_nodes
    assert machine.state.snapshot() == copy.snapshot()


def check_partition(
    state: MetadataState, now: PartitionInfo, before: PartitionInfo | None, command: pb.Command
) -> None:
    assert now.target
    for group in (now.replicas, now.wanted, now.passing):
        assert len(set(group)) == len(group)
    assert not set(now.holders) & state.removed_nodes
    if before is None or set(before.holders) <= set(now.holders):
        return
    # Somebody was let go: only a true report of the last order does that.
    assert command.HasField("replicas_moved")
    assert set(now.replicas) == set(before.target) == set(now.holders)
    reports = [each for each in command.replicas_moved.moved if each.group == now.group]
    assert any(each.move == before.move for each in reports)


def change_of(before: MetadataState, after: MetadataState) -> list[Change]:
    seen: list[Change] = []
    stop = before.on_change(seen.append)
    before.restore(after.snapshot())
    stop()
    return seen


def test_a_restore_tells_of_moves_and_forgotten_nodes_and_removes_no_partition(
    machine: Machine,
) -> None:
    behind = MetadataState()
    behind.restore(machine.state.snapshot())
    move = machine.do(remove("a", replacement="d"))
    machine.do(report(1, move, names(machine.partition.wanted)))
    machine.do(forget("a"))
    machine.do(set_voters("bc"))
    changes = change_of(behind, machine.state)
    assert PartitionChanged(machine.state.topic("t"), machine.partition) in changes
    assert any(isinstance(change, NodeForgotten) for change in changes)
    assert VotersChanged() in changes
    assert not any(isinstance(each, PartitionAdded | PartitionRemoved) for each in changes)
