"""What a client asks about the nodes of the cluster; the public names stand in ``AsyncClient``."""

from collections.abc import Sequence
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.models import (
    ClusterInfo,
    ClusterSettings,
    TopicInfo,
    cluster_info,
    cluster_settings,
    topic_info,
)
from quorumlog.client.nodes import Nodes
from quorumlog.client.topic_calls import count_of
from quorumlog.client.transport import ADMIN_SERVICE

TRANSFER_S: Final = 5.0
"""A leader that hands over answers when its successor leads, or after this time."""


class ClusterCalls:
    """Every call may be repeated, and is, until a node answers or the time is over."""

    def __init__(self, nodes: Nodes, leader_calls: LeaderCalls, request_timeout_s: float) -> None:
        self._nodes = nodes
        self._leader_calls = leader_calls
        self._request_timeout_s = request_timeout_s

    async def status(self) -> ClusterInfo:
        """See ``AsyncClient.cluster_status``."""
        status = await self._nodes.call(
            ADMIN_SERVICE + "Status",
            pb.ClusterStatusRequest(),
            pb.ClusterStatus,
            self._request_timeout_s,
        )
        return cluster_info(status)

    async def transfer(self, topic: str, partition: int, target: str | None) -> str:
        """See ``AsyncClient.transfer_leadership``."""
        response = await self._leader_calls.call(
            topic,
            partition,
            ADMIN_SERVICE + "TransferLeadership",
            pb.TransferLeadershipRequest(
                topic=topic, partition=count_of(partition, "partition"), target=target or ""
            ),
            pb.TransferLeadershipResponse,
            self._request_timeout_s,
            held_s=TRANSFER_S,
        )
        return response.leader

    async def assign_replicas(
        self, topic: str, partition: int, replicas: Sequence[str]
    ) -> TopicInfo:
        """See ``AsyncClient.assign_replicas``."""
        answer = await self._nodes.call(
            ADMIN_SERVICE + "AssignReplicas",
            pb.AssignReplicasRequest(
                topic=topic, partition=count_of(partition, "partition"), replicas=replicas
            ),
            pb.Topic,
            self._request_timeout_s,
        )
        return topic_info(answer)

    async def add_voter(self, node: str) -> tuple[str, ...]:
        """See ``AsyncClient.add_voter``."""
        answer = await self._nodes.call(
            ADMIN_SERVICE + "AddVoter",
            pb.AddVoterRequest(node=node),
            pb.AddVoterResponse,
            self._request_timeout_s,
        )
        return tuple(answer.voters)

    async def remove_node(self, node: str, replacement: str | None) -> int:
        """See ``AsyncClient.remove_node``."""
        answer = await self._nodes.call(
            ADMIN_SERVICE + "RemoveNode",
            pb.RemoveNodeRequest(node=node, replacement=replacement or ""),
            pb.RemoveNodeResponse,
            self._request_timeout_s,
        )
        return answer.moving

    async def drain_node(self, node: str, undo: bool, replicas: bool) -> int:
        """See ``AsyncClient.drain_node``."""
        answer = await self._nodes.call(
            ADMIN_SERVICE + "DrainNode",
            pb.DrainNodeRequest(node=node, undo=undo, replicas=replicas),
            pb.DrainNodeResponse,
            self._request_timeout_s,
        )
        return answer.moving

    async def alter(self, replace_failed_after_s: int | None) -> ClusterSettings:
        """See ``AsyncClient.alter_cluster``."""
        request = pb.AlterClusterRequest()
        if replace_failed_after_s is not None:
            seconds = count_of(replace_failed_after_s, "replace_failed_after_s")
            request.replace_failed_after_s = seconds
        answer = await self._nodes.call(
            ADMIN_SERVICE + "AlterCluster", request, pb.ClusterSettings, self._request_timeout_s
        )
        return cluster_settings(answer)
