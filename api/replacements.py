"""What the metadata's leader makes of nodes that it does not hear, as messages."""

from collections.abc import Iterable

from quorumlog.api._pb import peer_pb2, quorumlog_pb2
from quorumlog.broker.replacement import Replacement, Stage
from quorumlog.errors import ProtocolError
from quorumlog.types import NodeId


def replacements_reply(found: Iterable[Replacement]) -> peer_pb2.ReplacementsReply:
    """To another node."""
    return peer_pb2.ReplacementsReply(
        replacements=[
            peer_pb2.ReplacementsReply.Replacement(
                node=each.node,
                stage=each.stage,
                silent_s=each.silent_s,
                remaining_s=each.remaining_s,
                partitions=each.partitions,
                reason=each.reason,
            )
            for each in found
        ]
    )


def replacements_of(reply: peer_pb2.ReplacementsReply) -> tuple[Replacement, ...]:
    """From another node. Raises ProtocolError: it knows stages that this release does not."""
    try:
        return tuple(
            Replacement(
                NodeId(each.node),
                Stage(each.stage),
                each.silent_s,
                each.remaining_s,
                each.partitions,
                each.reason,
            )
            for each in reply.replacements
        )
    except ValueError as error:
        raise ProtocolError(f"a replacement that this release does not know: {error}") from error


def replacement_message(found: Replacement) -> quorumlog_pb2.Replacement:
    """To a client, as a part of the node that it is about."""
    return quorumlog_pb2.Replacement(
        stage=found.stage,
        silent_s=found.silent_s,
        remaining_s=found.remaining_s,
        partitions=found.partitions,
        reason=found.reason,
    )
