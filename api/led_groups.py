"""Groups as their leaders see them, as messages between nodes."""

from collections.abc import Mapping

from quorumlog.api._pb import peer_pb2
from quorumlog.broker.led_groups import LedGroup
from quorumlog.types import GroupId, NodeId


def led_groups_reply(led: Mapping[GroupId, LedGroup]) -> peer_pb2.LedGroupsReply:
    """To another node."""
    return peer_pb2.LedGroupsReply(
        groups=[
            peer_pb2.LedGroupsReply.Group(
                group=group,
                term=seen.term,
                voters=seen.voters,
                outgoing=seen.outgoing,
                silent=sorted(seen.silent),
            )
            for group, seen in led.items()
        ]
    )


def led_groups_of(reply: peer_pb2.LedGroupsReply) -> dict[GroupId, LedGroup]:
    """From another node."""
    return {
        GroupId(each.group): LedGroup(
            each.term,
            tuple(NodeId(node) for node in each.voters),
            tuple(NodeId(node) for node in each.outgoing),
            frozenset(NodeId(node) for node in each.silent),
        )
        for each in reply.groups
    }
