import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import (
    Applied,
    Change,
    NodeChanged,
    PartitionAdded,
    PartitionRemoved,
    TopicChanged,
    TopicRemoved,
)
from quorumlog.broker.metadata_command import check_command, parse_command, raise_for
from quorumlog.broker.topic_config import (
    MAX_RETENTION_MS,
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    TopicConfig,
)
from quorumlog.broker.topics import MAX_PARTITIONS, NodeInfo, Presence
from quorumlog.errors import (
    InvalidArgument,
    InvariantViolation,
    PartitionOutOfRange,
    ProtocolError,
    TopicExists,
    UnknownTopic,
)
from quorumlog.log.cleaning.retention import Retention
from quorumlog.types import GroupId, NodeId

NODES = ("n1", "n2", "n3")


def register(node: str, address: str = "") -> pb.Command:
    message = pb.Node(id=node, name=node.upper(), address=address or f"{node}:7400", version="1.0")
    return pb.Command(register_node=pb.RegisterNode(node=message))


def create(
    name: str,
    partitions: int = 1,
    replicas: int = 1,
    fsync: str = "",
    nodes: tuple[str, ...] = NODES,
) -> pb.Command:
    return pb.Command(
        create_topic=pb.CreateTopic(
            name=name,
            partitions=partitions,
            replicas=replicas,
            config=pb.TopicConfig(fsync=fsync),
            candidates=nodes,
        )
    )


def alter(
    name: str, partitions: int = 0, fsync: str = "", nodes: tuple[str, ...] = NODES
) -> pb.Command:
    return pb.Command(
        alter_topic=pb.AlterTopic(
            name=name,
            partitions=partitions,
            config=pb.TopicConfig(fsync=fsync),
            candidates=nodes,
        )
    )


def delete(name: str) -> pb.Command:
    return pb.Command(delete_topic=pb.DeleteTopic(name=name))


class Machine:
    """A state, fed by commands; raises what a result says."""

    def __init__(self) -> None:
        self.state = MetadataState()
        self.changes: list[Change] = []
        self.state.on_change(self.changes.append)

    def do(self, command: pb.Command) -> pb.Result:
        self.changes.clear()
        encoded = command.SerializeToString()
        return raise_for(self.state.apply(encoded, self.state.applied_index + 1))


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    for node in NODES:
        machine.do(register(node))
    return machine


def test_a_created_topic_has_its_partitions_groups_and_replicas(machine: Machine) -> None:
    result = machine.do(create("orders", partitions=3, replicas=2, fsync="interval"))
    topic = machine.state.topic("orders")
    assert result.index == machine.state.applied_index == 4
    assert (topic.name, topic.replicas, topic.config.fsync) == ("orders", 2, "interval")
    assert [each.partition for each in topic.partitions] == [0, 1, 2]
    assert [each.group for each in topic.partitions] == [1, 2, 3]
    assert all(len(set(each.replicas)) == 2 for each in topic.partitions)
    assert {each.replicas[0] for each in topic.partitions} == set(NODES)
    assert machine.state.partition("orders", 2) is topic.partitions[2]


def test_observers_hear_of_each_change_after_the_state_has_it() -> None:
    state = MetadataState()
    seen: list[tuple[Change, int]] = []
    stop = state.on_change(lambda change: seen.append((change, len(state.topics()))))
    state.apply(register("n1").SerializeToString(), 1)
    state.apply(create("t", 2).SerializeToString(), 2)
    topic = state.topic("t")
    state.apply(delete("t").SerializeToString(), 3)
    assert seen == [
        (NodeChanged(NodeInfo(NodeId("n1"), "N1", "n1:7400", "1.0")), 0),
        (Applied(1), 0),
        (TopicChanged(topic), 1),
        (PartitionAdded(topic, topic.partitions[0]), 1),
        (PartitionAdded(topic, topic.partitions[1]), 1),
        (Applied(2), 1),
        (PartitionRemoved(topic, topic.partitions[0]), 0),
        (PartitionRemoved(topic, topic.partitions[1]), 0),
        (TopicRemoved(topic), 0),
        (Applied(3), 0),
    ]
    stop()
    state.apply(create("u").SerializeToString(), 4)
    assert len(seen) == 10


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", ".hidden"])
def test_good_topic_names_are_taken(machine: Machine, name: str) -> None:
    machine.do(create(name))
    assert machine.state.topic(name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 250, "a\n"])
def test_bad_topic_names_are_refused(machine: Machine, name: str) -> None:
    with pytest.raises(InvalidArgument, match="no topic name"):
        machine.do(create(name))
    assert machine.state.topics() == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (create("t", partitions=0), "1 to 10000 partitions, not 0"),
        (create("t", partitions=10_001), "1 to 10000 partitions, not 10001"),
        (create("t", replicas=0), "at least 1 replica"),
        (create("t", replicas=4), "4 replicas need as many live nodes, and 3 nodes are there"),
        (create("t", replicas=2, nodes=("n1", "n1")), "1 node is there"),
        (create("t", fsync="never"), "fsync is always or interval, not 'never'"),
        (register(""), "its id and its address"),
    ],
)
def test_a_command_that_cannot_be_is_refused_and_changes_nothing(
    machine: Machine, command: pb.Command, message: str
) -> None:
    before = machine.state.snapshot()
    with pytest.raises(InvalidArgument, match=message):
        machine.do(command)
    assert machine.changes == [Applied(4)]
    after = MetadataState()
    after.restore(machine.state.snapshot())
    after.applied_index = 3
    assert after.snapshot() == before


def test_a_topic_that_exists_is_refused_by_name(machine: Machine) -> None:
    machine.do(create("t"))
    with pytest.raises(TopicExists) as caught:
        machine.do(create("t", partitions=5))
    assert caught.value.topic == "t"
    assert len(machine.state.topic("t").partitions) == 1


def test_what_does_not_exist_is_a_typed_error(machine: Machine) -> None:
    machine.do(create("t", partitions=2))
    for command in (alter("u", partitions=3), delete("u")):
        with pytest.raises(UnknownTopic) as unknown:
            machine.do(command)
        assert unknown.value.topic == "u"
    with pytest.raises(UnknownTopic):
        machine.state.partition("u", 0)
    for partition in (-1, 2):
        with pytest.raises(PartitionOutOfRange, match="partitions 0 to 1"):
            machine.state.partition("t", partition)


def test_altering_adds_partitions_and_keeps_the_old_ones(machine: Machine) -> None:
    machine.do(create("t", partitions=2, replicas=2))
    before = machine.state.topic("t").partitions
    machine.do(alter("t", partitions=4))
    after = machine.state.topic("t")
    assert after.partitions[:2] == before
    assert [each.partition for each in after.partitions] == [0, 1, 2, 3]
    assert [each.group for each in after.partitions] == [1, 2, 3, 4]
    added = [change.partition for change in machine.changes if isinstance(change, PartitionAdded)]
    assert added == list(after.partitions[2:])


def test_altering_one_setting_leaves_the_others(machine: Machine) -> None:
    machine.do(create("t", partitions=2, fsync="interval"))
    machine.do(alter("t", partitions=3))
    assert machine.state.topic("t").config.fsync == "interval"
    # No candidate is needed where nothing is placed.
    machine.do(alter("t", fsync="always", nodes=()))
    assert machine.state.topic("t").config.fsync == "always"
    assert len(machine.state.topic("t").partitions) == 3
    machine.do(alter("t"))
    assert machine.changes == [Applied(machine.state.applied_index)]


def test_a_topic_never_gets_fewer_partitions(machine: Machine) -> None:
    machine.do(create("t", partitions=3))
    with pytest.raises(InvalidArgument, match="has 3 partitions and cannot have fewer"):
        machine.do(alter("t", partitions=2))


def test_new_partitions_need_as_many_nodes_as_the_topic_has_replicas(machine: Machine) -> None:
    machine.do(create("t", replicas=3))
    with pytest.raises(InvalidArgument, match="3 replicas need as many live nodes, and 2 nodes"):
        machine.do(alter("t", partitions=2, nodes=("n1", "n2")))


def test_the_number_of_partitions_in_the_cluster_is_bounded(machine: Machine) -> None:
    for number in range(MAX_PARTITIONS // 10_000):
        machine.do(create(f"t{number}", partitions=10_000))
    with pytest.raises(InvalidArgument, match=f"can have {MAX_PARTITIONS}"):
        machine.do(create("more"))


def test_group_and_producer_ids_are_never_used_again(machine: Machine) -> None:
    for groups in ([1, 2], [3, 4], [5, 6]):
        machine.do(create("t", partitions=2))
        assert [each.group for each in machine.state.topic("t").partitions] == groups
        machine.do(delete("t"))
    allocate = pb.Command(allocate_producer=pb.AllocateProducer())
    assert [machine.do(allocate).producer_id for _ in range(3)] == [1, 2, 3]


def test_registering_again_is_idempotent_and_updates_the_address(machine: Machine) -> None:
    machine.do(register("n2"))
    assert machine.changes == [Applied(4)]
    machine.do(register("n2", "elsewhere:1"))
    assert [node.address for node in machine.state.nodes()] == ["n1:7400", "elsewhere:1", "n3:7400"]
    assert isinstance(machine.changes[0], NodeChanged)


def test_groups_of_a_node_are_those_it_replicates(machine: Machine) -> None:
    machine.do(create("t", partitions=6, replicas=2))
    machine.do(create("a", partitions=1, replicas=3))
    for node in NODES:
        held = machine.state.groups_of(NodeId(node))
        assert [pair.group for _, pair in held] == sorted(
            each.group
            for topic in machine.state.topics()
            for each in topic.partitions
            if node in each.replicas
        )
        assert GroupId(7) in [pair.group for _, pair in held]


UNKNOWN = [
    pytest.param(b"", id="no command"),
    pytest.param(b"\xff\xff", id="garbage"),
    # Field 99 of Command: a command of a later release.
    pytest.param(b"\x9a\x06\x00", id="unknown command"),
    # Field 9 within AllocateProducer: an option of a later release.
    pytest.param(b"\x2a\x02\x48\x01", id="unknown field of a known command"),
]


@pytest.mark.parametrize("command", UNKNOWN)
def test_a_command_of_another_release_is_never_skipped(machine: Machine, command: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_command(command)
    before = machine.state.snapshot()
    with pytest.raises(InvariantViolation, match=r"index 4 .* upgrade this node"):
        machine.state.apply(command, 4)
    assert machine.state.snapshot() == before


def test_what_an_alteration_does_not_name_stays(machine: Machine) -> None:
    command = create("t", fsync="interval")
    command.create_topic.config.MergeFrom(pb.TopicConfig(retention_ms=5, retention_bytes=-1))
    machine.do(command)
    assert machine.state.topic("t").config == TopicConfig("interval", retention_ms=5)
    command = alter("t")
    command.alter_topic.config.MergeFrom(pb.TopicConfig(retention_records=9, segment_bytes=1 << 20))
    machine.do(command)
    config = TopicConfig("interval", 5, retention_records=9, segment_bytes=1 << 20)
    assert machine.state.topic("t").config == config
    command = alter("t", fsync="always")
    command.alter_topic.config.MergeFrom(pb.TopicConfig(retention_ms=-1, retention_bytes=1 << 16))
    machine.do(command)
    config = TopicConfig("always", -1, 1 << 16, 9, 1 << 20)
    assert machine.state.topic("t").config == config
    assert config.retention == Retention(bytes=1 << 16, records=9)


def test_no_limit_is_no_limit() -> None:
    assert not TopicConfig().retention.is_limited
    assert TopicConfig(retention_ms=1_500).retention == Retention(age_s=1.5)


@pytest.mark.parametrize(
    "config",
    [
        *(
            {name: value}
            for name in ("retention_ms", "retention_bytes", "retention_records", "segment_bytes")
            for value in (0, -2, -(2**63))
        ),
        {"retention_ms": MAX_RETENTION_MS + 1},
        {"retention_bytes": MIN_SEGMENT_BYTES - 1},
        {"segment_bytes": MIN_SEGMENT_BYTES - 1},
        {"segment_bytes": MAX_SEGMENT_BYTES + 1},
    ],
)
def test_impossible_limits_are_refused_and_change_nothing(
    machine: Machine, config: dict[str, int]
) -> None:
    machine.do(create("t"))
    for command in (create("new"), alter("t")):
        topic = command.create_topic if command.HasField("create_topic") else command.alter_topic
        topic.config.MergeFrom(pb.TopicConfig(**config))
        before = machine.state.topics()
        with pytest.raises(InvalidArgument, match=next(iter(config))):
            machine.do(command)
        assert machine.state.topics() == before


@pytest.mark.parametrize(
    "config",
    [
        {"retention_ms": 1, "retention_bytes": MIN_SEGMENT_BYTES, "retention_records": 1},
        {"retention_ms": MAX_RETENTION_MS, "retention_bytes": 2**63 - 1},
        {"segment_bytes": MIN_SEGMENT_BYTES},
        {"segment_bytes": MAX_SEGMENT_BYTES},
    ],
)
def test_limits_at_their_bounds_are_taken(machine: Machine, config: dict[str, int]) -> None:
    command = create("t")
    command.create_topic.config.MergeFrom(pb.TopicConfig(**config))
    machine.do(command)
    assert machine.state.topic("t").config.retention is not None


SNAPSHOT_1 = (
    b'{"applied_index":4,"format":1,"next_group":2,"next_producer_id":1,"nodes":[["n1","N1",'
    b'"n1:7400","1.0"]],"topics":[{"fsync":"interval","name":"t","partitions":[[1,["n1"]]],'
    b'"replicas":1}]}'
)
SNAPSHOT_2 = (
    b'{"applied_index":4,"format":2,"next_group":2,"next_producer_id":1,"nodes":[["n1","N1",'
    b'"n1:7400","1.0"]],"topics":[{"config":{"fsync":"interval","retention_bytes":%s,'
    b'"retention_ms":-1,"retention_records":-1,"segment_bytes":-1},"name":"t",'
    b'"partitions":[[1,["n1"]]],"replicas":1}]}'
)


SNAPSHOT_3 = (
    b'{"applied_index":4,"format":3,"next_group":2,"next_producer_id":1,"nodes":[["n1","N1",'
    b'"n1:7400","1.0","%s"]],"removed":[%s],"topics":[{"config":{"fsync":"interval",'
    b'"retention_bytes":%s,"retention_ms":-1,"retention_records":-1,"segment_bytes":-1},"name":"t",'
    b'"partitions":[[1,["n1"],%s]],"replicas":1}],"voters":[%s]}'
)


SNAPSHOT_4 = (
    b'{"applied_index":4,"format":4,"free_index":%s,"next_group":2,"next_producer_id":1,'
    b'"nodes":[["n1","N1","n1:7400","1.0","%s"]],"removed":[%s],'
    b'"settings":{"replace_failed_after_s":%s},"topics":[{"config":{"fsync":"interval",'
    b'"retention_bytes":%s,"retention_ms":-1,"retention_records":-1,"segment_bytes":-1},"name":"t",'
    b'"partitions":[[1,["n1"],%s]],"replicas":1}],"voters":[%s]}'
)


SNAPSHOT_5 = SNAPSHOT_4.replace(b'"format":4', b'"format":5').replace(
    b'"1.0","%s"]', b'"1.0","%s","%s",%s]'
)


def test_the_bytes_of_a_snapshot_are_those_of_format_5() -> None:
    state = MetadataState()
    moving = b'["n2"],["n3"],7,5'
    node = (b"draining", b"failed", b"1700000000000")
    snapshot = SNAPSHOT_5 % (b"3", *node, b'"n0"', b"60", b"700", moving, b'3,["n1"]')
    state.restore(snapshot)
    assert (state.free_index, state.settings.replace_failed_after_s) == (3, 60)
    assert state.topic("t").config == TopicConfig("interval", retention_bytes=700)
    assert state.partition("t", 0).holders == ("n1", "n2", "n3")
    (absent,) = state.nodes()
    assert (absent.presence, absent.absent_since_ms) == (Presence.FAILED, 1_700_000_000_000)
    assert state.snapshot() == snapshot


@pytest.mark.parametrize(
    ("older", "retention_bytes"),
    [
        (SNAPSHOT_1, b"-1"),
        (SNAPSHOT_2 % b"9", b"9"),
        (SNAPSHOT_3 % (b"active", b"", b"9", b"[],[],0,0", b"0,[]"), b"9"),
        (SNAPSHOT_4 % (b"0", b"active", b"", b"0", b"9", b"[],[],0,0", b"0,[]"), b"9"),
    ],
)
def test_a_snapshot_of_an_older_format_is_read(older: bytes, retention_bytes: bytes) -> None:
    state = MetadataState()
    state.restore(older)
    assert state.snapshot() == SNAPSHOT_5 % (
        *(b"0", b"active", b"present", b"0", b"", b"0"),
        *(retention_bytes, b"[],[],0,0", b"0,[]"),
    )


@pytest.mark.parametrize("presence", [b"dead", b""])
def test_a_snapshot_with_an_impossible_presence_is_refused(presence: bytes) -> None:
    node = (b"active", presence, b"0")
    broken = SNAPSHOT_5 % (b"0", *node, b"", b"0", b"-1", b"[],[],0,0", b"0,[]")
    with pytest.raises(ProtocolError):
        MetadataState().restore(broken)


def test_a_leader_can_refuse_before_proposing() -> None:
    check_command(parse_command(create("t").SerializeToString()))
    with pytest.raises(InvalidArgument):
        check_command(alter("t", fsync="maybe"))


commands = st.one_of(
    st.builds(register, st.sampled_from(NODES), st.sampled_from(["", "x:1", "y:2"])),
    st.builds(create, st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 4)),
    st.builds(alter, st.sampled_from("abc"), st.integers(0, 6), st.sampled_from(["", "interval"])),
    st.builds(delete, st.sampled_from("abc")),
    st.just(pb.Command(allocate_producer=pb.AllocateProducer())),
)


@given(st.lists(commands, max_size=30), st.integers(0, 30))
def test_states_fed_alike_or_restored_on_the_way_are_equal(
    script: list[pb.Command], cut: int
) -> None:
    one, two = MetadataState(), MetadataState()
    for index, command in enumerate(script, 1):
        encoded = command.SerializeToString()
        if index == cut:
            two = MetadataState()
            two.restore(one.snapshot())
        assert one.apply(encoded, index) == two.apply(encoded, index)
    assert one.snapshot() == two.snapshot()
    held = {part.group: part for topic in one.topics() for part in topic.partitions}
    for group in map(GroupId, range(1, one.next_group)):
        assert one.group(group) == two.group(group) == held.get(group)
    groups = [part.group for topic in one.topics() for part in topic.partitions]
    assert len(set(groups)) == len(groups)
    assert all(group < one.next_group for group in groups)


@given(st.lists(commands, max_size=20), st.lists(commands, max_size=20))
def test_after_a_restore_observers_know_exactly_what_the_new_state_holds(
    first: list[pb.Command], second: list[pb.Command]
) -> None:
    held: set[GroupId] = set()
    names: set[str] = set()

    def follow(change: Change) -> None:
        match change:
            case PartitionAdded(_, partition):
                assert partition.group not in held
                held.add(partition.group)
            case PartitionRemoved(_, partition):
                held.remove(partition.group)
            case TopicChanged(topic):
                names.add(topic.name)
            case TopicRemoved(topic):
                names.remove(topic.name)

    state, ahead = MetadataState(), MetadataState()
    state.on_change(follow)
    for index, command in enumerate(first, 1):
        state.apply(command.SerializeToString(), index)
        ahead.apply(command.SerializeToString(), index)
    for index, command in enumerate(second, len(first) + 1):
        ahead.apply(command.SerializeToString(), index)
    state.restore(ahead.snapshot())
    assert held == {part.group for topic in ahead.topics() for part in topic.partitions}
    assert names == {topic.name for topic in ahead.topics()}
    assert state.snapshot() == ahead.snapshot()


def test_a_topic_made_anew_while_away_is_another_one(machine: Machine) -> None:
    behind = MetadataState()
    machine.do(create("t"))
    behind.restore(machine.state.snapshot())
    old = behind.topic("t")
    machine.do(delete("t"))
    machine.do(create("t"))
    seen: list[Change] = []
    behind.on_change(seen.append)
    behind.restore(machine.state.snapshot())
    new = behind.topic("t")
    assert seen == [
        PartitionRemoved(old, old.partitions[0]),
        TopicChanged(new),
        PartitionAdded(new, new.partitions[0]),
        Applied(6),
    ]


@pytest.mark.parametrize("snapshot", [b"", b"{}", b"[]", b'{"format":2}', b'{"format":4}', b"\xff"])
def test_what_is_no_snapshot_is_refused_and_changes_nothing(
    machine: Machine, snapshot: bytes
) -> None:
    before = machine.state.snapshot()
    with pytest.raises(ProtocolError):
        machine.state.restore(snapshot)
    assert machine.state.snapshot() == before
