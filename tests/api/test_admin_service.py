import asyncio

import pytest

from fakes.broker import FakeBroker
from fakes.calls import failure, settle
from fakes.context import FakeContext
from quorumlog.api import proposing
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.admin_service import AdminService
from quorumlog.broker._pb import metadata_pb2
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    PartitionOutOfRange,
    TopicExists,
    Unavailable,
    UnknownTopic,
)
from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId


@pytest.fixture
def service(broker: FakeBroker) -> AdminService:
    return AdminService(broker)


async def test_a_topic_is_created_with_what_was_asked(
    service: AdminService, context: FakeContext
) -> None:
    request = pb.CreateTopicRequest(
        name="orders", partitions=3, replicas=2, config=pb.TopicConfig(fsync="interval")
    )
    topic = await service.CreateTopic(request, context)
    assert (topic.name, topic.replicas, topic.config.fsync) == ("orders", 2, "interval")
    assert [each.partition for each in topic.partitions] == [0, 1, 2]
    assert {each.leader for each in topic.partitions} == {"a", "b", "c"}
    assert all(len(each.replicas) == 2 for each in topic.partitions)
    assert [each.leader == "a" for each in topic.partitions] == [
        each.exact for each in topic.partitions
    ]
    described = await service.DescribeTopic(pb.DescribeTopicRequest(name="orders"), context)
    assert described == topic


@pytest.mark.parametrize(("nodes", "replicas"), [("a", 1), ("ab", 2), ("abc", 3), ("abcde", 3)])
async def test_zeros_mean_one_partition_and_up_to_three_replicas(
    context: FakeContext, nodes: str, replicas: int
) -> None:
    service = AdminService(FakeBroker(*nodes))
    topic = await service.CreateTopic(pb.CreateTopicRequest(name="t"), context)
    assert (len(topic.partitions), topic.replicas) == (1, replicas)
    assert topic.config.fsync == "always"


async def test_replicas_go_to_live_nodes_only(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.states["b"] = MemberState.FAILED
    request = pb.CreateTopicRequest(name="u", partitions=4, replicas=2)
    topic = await service.CreateTopic(request, context)
    assert {node for each in topic.partitions for node in each.replicas} == {"a", "c"}


@pytest.mark.parametrize("replicas", [0, 3])
async def test_a_topic_waits_for_nodes_that_are_down_rather_than_having_fewer_replicas(
    broker: FakeBroker, service: AdminService, context: FakeContext, replicas: int
) -> None:
    broker.states["b"] = MemberState.FAILED
    request = pb.CreateTopicRequest(name="v", replicas=replicas)
    error = await failure(service.CreateTopic(request, context))
    assert type(error) is Unavailable
    assert "2 of 3 are up" in str(error)


async def test_more_replicas_than_the_cluster_has_nodes_are_refused(
    service: AdminService, context: FakeContext
) -> None:
    error = await failure(service.CreateTopic(pb.CreateTopicRequest(name="v", replicas=4), context))
    assert type(error) is InvalidArgument
    assert "3 nodes are there" in str(error)


async def test_what_cannot_be_is_refused_before_it_is_proposed(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    before = broker.leader_metadata.applied_index
    for request in (
        pb.CreateTopicRequest(name="a/b"),
        pb.CreateTopicRequest(name="t2", partitions=20_000),
        pb.CreateTopicRequest(name="t2", config=pb.TopicConfig(fsync="never")),
    ):
        assert type(await failure(service.CreateTopic(request, context))) is InvalidArgument
    assert broker.leader_metadata.applied_index == before


async def test_limits_travel_to_the_metadata_and_back(
    service: AdminService, context: FakeContext
) -> None:
    config = pb.TopicConfig(retention_ms=1, retention_bytes=1 << 16, cleanup="delete")
    made = await service.CreateTopic(pb.CreateTopicRequest(name="v", config=config), context)
    assert made.config == pb.TopicConfig(
        fsync="always",
        retention_ms=1,
        retention_bytes=1 << 16,
        retention_records=-1,
        segment_bytes=-1,
        cleanup="delete",
    )
    config = pb.TopicConfig(retention_ms=-1, retention_records=3)
    altered = await service.AlterTopic(pb.AlterTopicRequest(name="v", config=config), context)
    assert (altered.config.retention_ms, altered.config.retention_bytes) == (-1, 1 << 16)
    assert altered.config.retention_records == 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (pb.TopicConfig(cleanup="compact"), "not compacted yet"),
        (pb.TopicConfig(cleanup="both"), "cleanup is delete"),
        (pb.TopicConfig(retention_ms=0), "retention_ms goes from 1"),
        (pb.TopicConfig(segment_bytes=1), "segment_bytes goes from 65536"),
    ],
)
async def test_settings_that_cannot_be_are_refused_before_anything_is_proposed(
    broker: FakeBroker,
    service: AdminService,
    context: FakeContext,
    config: pb.TopicConfig,
    says: str,
) -> None:
    before = broker.leader_metadata.applied_index
    for call in (
        service.CreateTopic(pb.CreateTopicRequest(name="v", config=config), context),
        service.AlterTopic(pb.AlterTopicRequest(name="t", config=config), context),
    ):
        error = await failure(call)
        assert type(error) is InvalidArgument
        assert says in str(error)
    assert broker.leader_metadata.applied_index == before


async def test_records_are_deleted_up_to_the_high_watermark_and_no_further(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    log = broker.log("t", 1)
    log.high_watermark = 7
    for offset, start in ((5, 5), (3, 5), (7, 7)):
        request = pb.DeleteBeforeRequest(topic="t", partition=1, offset=offset)
        assert (await service.DeleteBefore(request, context)).log_start_offset == start
    request = pb.DeleteBeforeRequest(topic="t", partition=1, offset=8)
    error = await failure(service.DeleteBefore(request, context))
    assert isinstance(error, OffsetOutOfRange)
    assert (error.offset, error.start, error.end) == (8, 7, 7)
    log.leader = NodeId("b")
    assert type(await failure(service.DeleteBefore(request, context))) is NotLeader


async def test_what_exists_or_not_is_a_typed_error(
    service: AdminService, context: FakeContext
) -> None:
    exists = await failure(service.CreateTopic(pb.CreateTopicRequest(name="t"), context))
    assert isinstance(exists, TopicExists)
    assert exists.topic == "t"
    for call in (
        service.AlterTopic(pb.AlterTopicRequest(name="u", partitions=3), context),
        service.DeleteTopic(pb.DeleteTopicRequest(name="u"), context),
        service.DescribeTopic(pb.DescribeTopicRequest(name="u"), context),
        service.TransferLeadership(pb.TransferLeadershipRequest(topic="u"), context),
    ):
        assert type(await failure(call)) is UnknownTopic


async def test_altering_and_deleting(service: AdminService, context: FakeContext) -> None:
    request = pb.AlterTopicRequest(name="t", partitions=4, config=pb.TopicConfig(fsync="interval"))
    topic = await service.AlterTopic(request, context)
    assert (len(topic.partitions), topic.config.fsync) == (4, "interval")
    fewer = await failure(service.AlterTopic(pb.AlterTopicRequest(name="t", partitions=2), context))
    assert type(fewer) is InvalidArgument
    await service.DeleteTopic(pb.DeleteTopicRequest(name="t"), context)
    assert (await service.ListTopics(pb.ListTopicsRequest(), context)).topics == []


async def test_topics_are_listed_by_name(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.create("b")
    broker.create("a")
    listed = await service.ListTopics(pb.ListTopicsRequest(), context)
    assert [topic.name for topic in listed.topics] == ["a", "b", "t"]


async def test_the_answer_waits_until_this_node_knows_the_topic(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.metadata_delayed = True
    creating = asyncio.create_task(
        service.CreateTopic(pb.CreateTopicRequest(name="late", partitions=2), context)
    )
    await settle()
    assert not creating.done()
    broker.catch_up()
    assert len((await creating).partitions) == 2


async def test_a_node_that_does_not_catch_up_says_that_the_change_was_made(
    broker: FakeBroker,
    service: AdminService,
    context: FakeContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proposing, "CATCH_UP_TIMEOUT_S", 0.001)
    broker.metadata_delayed = True
    error = await failure(service.CreateTopic(pb.CreateTopicRequest(name="late"), context))
    assert type(error) is OutcomeUnknown
    assert "the change was made" in str(error)


async def test_a_described_partition_is_exact_where_it_is_led(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.log("t", 0)
    broker.log("t", 1).leader = broker.metadata.nodes()[1].id
    topic = await service.DescribeTopic(pb.DescribeTopicRequest(name="t"), context)
    assert [(each.leader, each.exact, each.term) for each in topic.partitions] == [
        ("a", True, 3),
        ("b", False, 3),
    ]
    assert [each.group for each in topic.partitions] == [1, 2]


async def test_status_counts_what_each_node_leads_and_holds(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.create("u", partitions=2, replicas=1)
    for topic, partition, leader in (("t", 0, "a"), ("t", 1, "a"), ("u", 0, "b")):
        broker.log(topic, partition).leader = next(
            node.id for node in broker.metadata.nodes() if node.id == leader
        )
    broker.log("u", 1).leader = None  # type: ignore[assignment]
    broker.states["c"] = MemberState.SUSPECT
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert (status.cluster_id, status.node_id, status.version) == ("cluster-1", "a", "1.0")
    assert (status.leader, status.term, status.commit_index) == ("b", 3, 17)
    assert (status.topics, status.partitions, status.partitions_without_leader) == (2, 4, 1)
    assert [(node.id, node.state, node.role, node.leads) for node in status.nodes] == [
        ("a", "alive", "voter", 2),
        ("b", "alive", "voter", 1),
        ("c", "suspect", "voter", 0),
    ]
    assert sum(node.replicas for node in status.nodes) == 2 * 3 + 2


async def test_a_node_that_just_started_still_tells_whom_it_sees(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.starting = True
    broker.states["b"] = MemberState.FAILED
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert (status.leader, status.topics) == ("b", 0)
    assert [(node.id, node.address, node.role, node.state) for node in status.nodes] == [
        ("a", "a:7400", "voter", "alive"),
        ("b", "b:7400", "voter", "failed"),
        ("c", "c:7400", "voter", "alive"),
    ]


async def test_a_node_that_just_started_calls_no_topic_unknown(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.starting = True
    for call in (
        service.DescribeTopic(pb.DescribeTopicRequest(name="nope"), context),
        service.GetMetadata(pb.MetadataRequest(topics=["nope"]), context),
        service.ListTopics(pb.ListTopicsRequest(), context),
    ):
        assert type(await failure(call)) is Unavailable


async def test_metadata_names_every_node_and_the_topics_asked_for(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.create("u")
    everything = await service.GetMetadata(pb.MetadataRequest(), context)
    assert [topic.name for topic in everything.topics] == ["t", "u"]
    assert [(node.id, node.address) for node in everything.nodes] == [
        ("a", "a:7400"),
        ("b", "b:7400"),
        ("c", "c:7400"),
    ]
    some = await service.GetMetadata(pb.MetadataRequest(topics=["x", "u", "u"]), context)
    assert [topic.name for topic in some.topics] == ["u"]
    assert list(some.unknown_topics) == ["x"]
    assert some.cluster_id == "cluster-1"


async def test_an_address_that_only_gossip_knows_is_shown_beside_the_registered_one(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.moved["b"] = "elsewhere:1"
    metadata = await service.GetMetadata(pb.MetadataRequest(), context)
    assert [(node.address, node.gossip_address) for node in metadata.nodes] == [
        ("a:7400", ""),
        ("b:7400", "elsewhere:1"),
        ("c:7400", ""),
    ]


async def test_what_is_on_record_and_who_else_claims_a_node_is_shown(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    noted = metadata_pb2.NotePresence(node="c", presence="left", absent_since_ms=5)
    await broker.propose_metadata(metadata_pb2.Command(note_presence=noted))
    broker.strangers = [
        Member("twin", "t", 7946, MemberState.SUSPECT, {"id": "b", "cluster": "cluster-1"}),
        Member("foreign", "f", 7946, MemberState.ALIVE, {"id": "a", "cluster": "another"}),
        Member("gone", "g", 7946, MemberState.FAILED, {"id": "a", "cluster": "cluster-1"}),
    ]
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert [(node.presence, node.absent_since_ms, node.claimed_by) for node in status.nodes] == [
        ("present", 0, []),
        ("present", 0, ["node-b", "twin"]),
        ("left", 5, []),
    ]


async def test_every_member_of_gossip_is_shown_once(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    ours = {"cluster": "cluster-1"}
    broker.strangers = [
        Member("agent", "10.0.0.9", 7946, MemberState.ALIVE, {"role": "web"}),
        Member("unformed", "fd00::8", 7946, MemberState.SUSPECT, {"id": "u", "cluster": ""}),
        Member("foreign", "f", 1, MemberState.FAILED, {"id": "a", "cluster": "x", "rpc": "f:7400"}),
        Member("node-a-before", "g", 2, MemberState.LEFT, {"id": "a", "ver": "0.1", **ours}),
        Member("twin", "t", 3, MemberState.ALIVE, {"id": "b", **ours}),
        Member("joins", "j", 4, MemberState.ALIVE, {"id": "j", "rpc": "j:7400", **ours}),
    ]
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert list(status.others) == [
        pb.GossipMember(name="stranger", gossip="x:7946", state="alive", node_id="x"),
        pb.GossipMember(name="agent", gossip="10.0.0.9:7946", state="alive"),
        pb.GossipMember(name="unformed", gossip="[fd00::8]:7946", state="suspect", node_id="u"),
        pb.GossipMember(
            name="foreign",
            gossip="f:1",
            state="failed",
            node_id="a",
            cluster_id="x",
            address="f:7400",
        ),
        pb.GossipMember(
            name="node-a-before",
            gossip="g:2",
            state="left",
            node_id="a",
            cluster_id="cluster-1",
            version="0.1",
        ),
    ]
    shown = [name for node in status.nodes for name in node.claimed_by or [node.name]]
    assert [node.id for node in status.nodes] == ["a", "b", "c", "j"]
    assert "twin" in shown
    assert "joins" in shown


async def test_a_name_that_only_gossip_knows_is_shown_beside_the_registered_one(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.states["b"] = MemberState.FAILED
    renamed = {"id": "b", "cluster": "cluster-1"}
    broker.strangers = [Member("renamed", "b", 7946, MemberState.ALIVE, renamed)]
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert [(node.name, node.gossip_name) for node in status.nodes] == [
        ("node-a", ""),
        ("node-b", "renamed"),
        ("node-c", ""),
    ]
    (former,) = [other for other in status.others if other.node_id == "b"]
    assert (former.name, former.state) == ("node-b", "failed")


async def test_leadership_goes_to_the_node_that_was_named(
    service: AdminService, context: FakeContext
) -> None:
    request = pb.TransferLeadershipRequest(topic="t", partition=1, target="c")
    assert (await service.TransferLeadership(request, context)).leader == "c"
    error = await failure(service.TransferLeadership(request, context))
    assert isinstance(error, NotLeader)
    any_target = pb.TransferLeadershipRequest(topic="t", partition=0)
    assert (await service.TransferLeadership(any_target, context)).leader in ("b", "c")


async def test_leadership_never_goes_to_a_node_without_a_replica(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    request = pb.TransferLeadershipRequest(topic="t", target="z")
    error = await failure(service.TransferLeadership(request, context))
    assert type(error) is InvalidArgument
    assert "its replicas are on" in str(error)
    request = pb.TransferLeadershipRequest(topic="t", partition=9)
    error = await failure(service.TransferLeadership(request, context))
    assert type(error) is PartitionOutOfRange
