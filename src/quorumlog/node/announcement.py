"""Before a node takes part: it tells the others who it is, and hears whether it may be that."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from quorumlog.api._pb import peer_pb2
from quorumlog.broker.gossip_view import LACKS_TAG
from quorumlog.errors import DuplicateNode, NodeRemoved, QuorumlogError, Unavailable, WrongCluster
from quorumlog.node.bootstrap import Calls
from quorumlog.node.identity import Seat
from quorumlog.ports import Membership, MemberState
from quorumlog.replication.host import GroupHost

_MEET_S: Final = 2.0
_ROUNDS: Final = 6
_PAUSE_S: Final = 1.0
_NOT_OF_ANOTHER: Final = {"", Unavailable.reason}
"""Who answers so is of this cluster, or is starting, too, and cannot say yet."""


async def announce(
    hello: peer_pb2.Hello,
    voters: Sequence[Seat],
    *,
    membership: Membership,
    calls: Calls,
    has_seeds: bool,
) -> None:
    """Ask the others whether the identity in ``hello`` is free.

    Those are the ``voters``, and whoever gossip knows; where it ``has_seeds`` it is given a moment
    to meet somebody. A node that was just restarted may still look alive to some for a moment, and
    where all nodes start again a stranger at an old address may be the first to answer: only a
    persistent no counts.

    Raises:
        DuplicateNode: another process is that node, and stays it.
        NodeRemoved: that node was removed from the cluster.
        WrongCluster: those who answer are all of another one.
    """
    if has_seeds:
        await _meet_others(membership)
    for remaining in reversed(range(_ROUNDS)):
        addresses = _others(hello.address, voters, membership)
        replies = await asyncio.gather(
            *(_ask(calls, address, hello) for address in sorted(addresses))
        )
        errors = {reply.error: reply.message for reply in replies if reply is not None}
        if DuplicateNode.reason in errors:
            if remaining == 0:
                raise DuplicateNode(errors[DuplicateNode.reason])
        elif NodeRemoved.reason in errors:
            raise NodeRemoved(errors[NodeRemoved.reason])
        elif WrongCluster.reason in errors and not errors.keys() & _NOT_OF_ANOTHER:
            if remaining == 0:
                raise WrongCluster(errors[WrongCluster.reason])
        else:
            return
        await asyncio.sleep(_PAUSE_S)


async def tags_of_losses(host: GroupHost) -> dict[str, str]:
    """What others have to know who choose where replicas go."""
    return {LACKS_TAG: "groups"} if await host.lacks_groups() else {}


async def _meet_others(membership: Membership) -> None:
    """Give gossip a moment to reach a seed; there may be none that is up."""
    met = asyncio.Event()
    membership.on_change(lambda member: met.set())
    if len(membership.members()) < 2:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(met.wait(), _MEET_S)


def _others(address: str, voters: Sequence[Seat], membership: Membership) -> set[str]:
    seen = {
        member.tags["rpc"]
        for member in membership.members()
        if member.state is MemberState.ALIVE and "rpc" in member.tags
    }
    return (seen | {seat.address for seat in voters}) - {address}


async def _ask(calls: Calls, address: str, hello: peer_pb2.Hello) -> peer_pb2.HelloReply | None:
    try:
        reply: peer_pb2.HelloReply = await calls.call(address, "Announce", hello, 1.0)
    except QuorumlogError:
        return None
    return reply
