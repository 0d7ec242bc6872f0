"""Changes of who belongs to the cluster: decided, or refused with the way out."""

import pytest

from fakes.broker import FakeBroker
from fakes.calls import failure
from fakes.context import FakeContext
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.admin_service import AdminService
from quorumlog.errors import InvalidArgument, NotFound, UnsafeChange
from quorumlog.ports import MemberState
from quorumlog.types import NodeId


@pytest.fixture
def broker() -> FakeBroker:
    """Four nodes; ``t`` has its only partition on three of them."""
    broker = FakeBroker("a", "b", "c", "d")
    broker.create("t", replicas=3)
    return broker


@pytest.fixture
def service(broker: FakeBroker) -> AdminService:
    return AdminService(broker)


def spare_of(broker: FakeBroker) -> str:
    return next(n for n in "abcd" if n not in broker.metadata.partition("t", 0).replicas)


def held(broker: FakeBroker) -> list[str]:
    return list(broker.metadata.partition("t", 0).replicas)


async def test_replicas_are_wanted_elsewhere_by_name_or_id(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    wanted = [f"node-{spare_of(broker)}", *held(broker)[:2]]
    request = pb.AssignReplicasRequest(topic="t", replicas=wanted)
    topic = await service.AssignReplicas(request, context)
    assert list(topic.partitions[0].wanted) == [spare_of(broker), *held(broker)[:2]]
    request.replicas.append("nobody")
    error = await failure(service.AssignReplicas(request, context))
    assert type(error) is NotFound
    assert "there are node-a, node-b, node-c, node-d" in str(error)


async def test_a_dead_nodes_places_go_to_the_spare(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    victim, spare = held(broker)[1], spare_of(broker)
    broker.states[victim] = MemberState.FAILED
    response = await service.RemoveNode(pb.RemoveNodeRequest(node=victim), context)
    assert response.moving == 1
    assert broker.metadata.partition("t", 0).wanted[1] == spare
    assert victim not in broker.metadata.voters
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert {node.id: node.standing for node in status.nodes}[victim] == "leaving"
    assert status.partitions_moving == 1


async def test_nothing_is_removed_where_no_majority_is_up(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    first, second, _ = held(broker)
    broker.states = {first: MemberState.FAILED, second: MemberState.FAILED}
    error = await failure(service.RemoveNode(pb.RemoveNodeRequest(node=first), context))
    assert type(error) is UnsafeChange
    assert "t/0 has no majority of its replicas up" in str(error)
    assert "start one of them again" in str(error)
    assert broker.metadata.partition("t", 0).wanted == ()


async def test_the_only_replica_on_a_dead_node_is_not_given_up(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    broker.create("single")
    (only,) = broker.metadata.partition("single", 0).replicas
    broker.states[only] = MemberState.FAILED
    error = await failure(service.RemoveNode(pb.RemoveNodeRequest(node=only), context))
    assert type(error) is UnsafeChange
    assert "single/0 has its only replica on" in str(error)


async def test_the_last_voter_stays(context: FakeContext) -> None:
    service = AdminService(FakeBroker("a"))
    error = await failure(service.RemoveNode(pb.RemoveNodeRequest(node="a"), context))
    assert type(error) is UnsafeChange
    assert "last voter" in str(error)


async def test_a_replacement_has_to_be_up(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    spare = spare_of(broker)
    broker.states[spare] = MemberState.FAILED
    request = pb.RemoveNodeRequest(node=held(broker)[0], replacement=spare)
    error = await failure(service.RemoveNode(request, context))
    assert type(error) is UnsafeChange
    assert "start it first" in str(error)


async def test_a_drained_node_is_shown_until_that_is_undone(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    await service.DrainNode(pb.DrainNodeRequest(node="node-b"), context)
    assert not broker.metadata.may_lead(NodeId("b"))
    await service.DrainNode(pb.DrainNodeRequest(node="b", undo=True), context)
    assert broker.metadata.may_lead(NodeId("b"))
    broker.states = {node: MemberState.FAILED for node in "acd"}
    error = await failure(service.DrainNode(pb.DrainNodeRequest(node="b"), context))
    assert type(error) is UnsafeChange
    assert "no other node is up" in str(error)


async def test_who_votes_already_is_no_news(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    response = await service.AddVoter(pb.AddVoterRequest(node="a"), context)
    assert list(response.voters) == ["a", "b", "c", "d"]
    assert broker.metadata.voters == ()


async def test_more_replicas_are_made_where_there_are_nodes(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    topic = await service.AlterTopic(pb.AlterTopicRequest(name="t", replicas=4), context)
    assert (topic.replicas, sorted(topic.partitions[0].wanted)) == (4, ["a", "b", "c", "d"])
    request = pb.AlterTopicRequest(name="t", replicas=5)
    assert type(await failure(service.AlterTopic(request, context))) is InvalidArgument
