"""Changes of who belongs to the cluster: decided, or refused with the way out."""

import pytest

from fakes.broker import FakeBroker
from fakes.calls import failure
from fakes.context import FakeContext
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.admin_service import AdminService
from quorumlog.api.replacements import replacements_of, replacements_reply
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.replacement import Replacement, Stage
from quorumlog.errors import InvalidArgument, NotFound, ProtocolError, UnsafeChange
from quorumlog.ports import MemberState
from quorumlog.types import METADATA_GROUP, NodeId


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


async def test_a_node_that_lost_the_list_of_its_groups_takes_none_that_there_is(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    spare, victim = spare_of(broker), held(broker)[1]
    broker.lacking.add(NodeId(spare))
    wanted = [spare, *held(broker)[:2]]
    order = pb.AssignReplicasRequest(topic="t", replicas=wanted)
    removal = pb.RemoveNodeRequest(node=victim)
    replacement = pb.RemoveNodeRequest(node=victim, replacement=spare)
    drain = pb.DrainNodeRequest(node=victim, replicas=True)
    larger = pb.AlterTopicRequest(name="t", replicas=4)
    for call in (
        service.AssignReplicas(order, context),
        service.RemoveNode(replacement, context),
        service.RemoveNode(removal, context),
        service.DrainNode(drain, context),
        service.AlterTopic(larger, context),
    ):
        assert isinstance(await failure(call), UnsafeChange | InvalidArgument)
        assert not broker.metadata.partition("t", 0).wanted
    await service.CreateTopic(pb.CreateTopicRequest(name="new", replicas=4), context)
    broker.lacking.clear()
    await service.AssignReplicas(order, context)
    assert list(broker.metadata.partition("t", 0).wanted) == wanted


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
    down = f"node-{first}, node-{second} down"
    assert f"t/0 has no majority of voters that answers ({down})" in str(error)
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
    assert f"single/0: the only replica does not answer (node-{only} down)" in str(error)


async def test_a_node_that_is_up_with_replicas_that_are_not_is_not_counted(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    first, second, third = held(broker)
    broker.silent = {NodeId(second)}
    shrunk = pb.AssignReplicasRequest(topic="t", replicas=[first, second])
    error = await failure(service.AssignReplicas(shrunk, context))
    assert type(error) is UnsafeChange
    assert f"t/0 would have no majority of voters that answers (node-{second} up" in str(error)
    broker.states[first] = MemberState.FAILED
    moved = pb.AssignReplicasRequest(topic="t", replicas=[first, third, spare_of(broker)])
    for call in (
        service.AssignReplicas(moved, context),
        service.RemoveNode(pb.RemoveNodeRequest(node=first), context),
        service.DrainNode(pb.DrainNodeRequest(node=third, replicas=True), context),
    ):
        error = await failure(call)
        assert type(error) is UnsafeChange
        assert "t/0 has no majority of voters that answers" in str(error)
        assert f"node-{first} down; " in str(error)
    # Two are left of the three that vote, and of the three that will.
    broker.states.clear()
    await service.RemoveNode(pb.RemoveNodeRequest(node=second), context)
    assert second not in broker.metadata.partition("t", 0).target


async def test_a_topic_does_not_shrink_to_a_replica_that_does_not_answer(
    broker: FakeBroker, service: AdminService, context: FakeContext
) -> None:
    broker.silent = {NodeId(held(broker)[0])}
    request = pb.AlterTopicRequest(name="t", replicas=1)
    error = await failure(service.AlterTopic(request, context))
    assert type(error) is UnsafeChange
    assert "t/0 would have no majority" in str(error)
    broker.silent = set(map(NodeId, held(broker)[1:2]))
    await service.AlterTopic(request, context)


async def test_no_vote_on_the_metadata_goes_to_a_replica_that_does_not_answer(
    context: FakeContext,
) -> None:
    """Three vote of five, one of them is to go; of the two spares one is fenced."""
    broker = FakeBroker("a", "b", "c", "d", "e")
    service = AdminService(broker)
    await broker.propose_metadata(
        metadata_pb2.Command(
            set_voters=metadata_pb2.SetVoters(voters=["a", "b", "c"], voters_index=0)
        )
    )
    voters = (NodeId("a"), NodeId("b"), NodeId("c"))
    broker.led[METADATA_GROUP] = LedGroup(3, voters, silent=frozenset({NodeId("d")}))
    await service.RemoveNode(pb.RemoveNodeRequest(node="c"), context)
    assert broker.metadata.voters == ("a", "b", "e")
    broker.led[METADATA_GROUP] = None
    error = await failure(service.AddVoter(pb.AddVoterRequest(node="d"), context))
    assert type(error) is UnsafeChange
    assert "metadata has no majority of voters that answers (nobody leads on" in str(error)


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


@pytest.mark.parametrize("replicas", [[], ["a", "node-a"]])
async def test_replicas_are_wanted_on_at_least_one_node_and_once_on_each(
    service: AdminService, context: FakeContext, replicas: list[str]
) -> None:
    request = pb.AssignReplicasRequest(topic="t", replicas=replicas)
    error = await failure(service.AssignReplicas(request, context))
    assert type(error) is InvalidArgument
    assert "at least one and each once" in str(error)


async def test_no_node_takes_its_own_place(service: AdminService, context: FakeContext) -> None:
    request = pb.RemoveNodeRequest(node="a", replacement="node-a")
    error = await failure(service.RemoveNode(request, context))
    assert type(error) is InvalidArgument
    assert "node-a cannot take its own place" in str(error)


async def test_the_clusters_settings_are_changed_and_shown(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    request = pb.AlterClusterRequest(replace_failed_after_s=600)
    assert (await service.AlterCluster(request, context)).replace_failed_after_s == 600
    # What is not named stays.
    kept = await service.AlterCluster(pb.AlterClusterRequest(), context)
    assert kept.replace_failed_after_s == 600
    status = await service.Status(pb.ClusterStatusRequest(), context)
    assert status.settings.replace_failed_after_s == 600
    await service.AlterCluster(pb.AlterClusterRequest(replace_failed_after_s=0), context)
    assert broker.metadata.settings.replace_failed_after_s == 0


@pytest.mark.parametrize("seconds", [1, 4, 604_801])
async def test_a_setting_out_of_its_bounds_is_refused(
    service: AdminService, broker: FakeBroker, context: FakeContext, seconds: int
) -> None:
    request = pb.AlterClusterRequest(replace_failed_after_s=seconds)
    error = await failure(service.AlterCluster(request, context))
    assert type(error) is InvalidArgument
    assert "from 5 to 604800" in str(error)
    assert broker.metadata.settings.replace_failed_after_s == 0


async def test_the_status_has_what_the_leader_makes_of_a_node(
    service: AdminService, broker: FakeBroker, context: FakeContext
) -> None:
    broker.not_heard = [Replacement(NodeId("c"), Stage.REFUSED, 70.0, 0.0, 2, "no spare")]
    status = await service.Status(pb.ClusterStatusRequest(), context)
    told = {node.id: node for node in status.nodes}
    assert told["c"].replacement == pb.Replacement(
        stage="refused", silent_s=70.0, partitions=2, reason="no spare"
    )
    assert not told["a"].HasField("replacement")


def test_what_a_leader_makes_of_nodes_is_told_to_other_nodes() -> None:
    found = (
        Replacement(NodeId("c"), Stage.COUNTING, 7.5, 2.5, 3),
        Replacement(NodeId("d"), Stage.REFUSED, 70.0, 0.0, 2, "no spare"),
    )
    reply = replacements_reply(found)
    assert replacements_of(reply) == found
    reply.replacements[0].stage = "of the next release"
    with pytest.raises(ProtocolError):
        replacements_of(reply)
