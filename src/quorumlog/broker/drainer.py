"""Gives leaderships away while the metadata say that this node is to have none."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from quorumlog.broker.metadata import MetadataState
from quorumlog.errors import QuorumlogError
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId

_LOOK_S: Final = 0.2
_TRANSFERS_AT_A_TIME: Final = 16

_log = structlog.get_logger()


class Drainer:
    """One task calls :meth:`tend` whenever the metadata changed, a leader did, or it asks so."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        is_alive: Callable[[NodeId], bool],
        look_again: Callable[[], None],
    ) -> None:
        """``is_alive`` is gossip's opinion; ``look_again`` has :meth:`tend` called soon."""
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._is_alive = is_alive
        self._look_again = look_again

    async def tend(self) -> None:
        """Begin some transfers; a group without anybody else to lead it keeps its leader."""
        if self._metadata.may_lead(self._node_id):
            return
        led = [replica for _, replica in sorted(self._host.replicas.items()) if replica.serving]
        moving = [replica for replica in led if replica.transferring]
        for replica in led:
            successor = self._successor_of(replica)
            if successor is None or replica.transferring:
                continue
            if len(moving) == _TRANSFERS_AT_A_TIME:
                break
            moving.append(replica)
            try:
                replica.transfer_leadership(successor)
            except QuorumlogError as error:
                _log.debug("leadership_not_drained_yet", group=replica.group, error=str(error))
        if led:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)

    def _successor_of(self, replica: Replica) -> NodeId | None:
        """A voter that may lead, whose node is up and whose replica answers, with the most of the
        log: the first in the placement."""
        leadership = replica.core.leadership
        if leadership is None:
            return None
        partition = self._metadata.group(replica.group)
        order = partition.replicas if partition is not None else ()
        found: list[tuple[int, int, NodeId]] = []
        for voter in replica.core.members.voters:
            progress = leadership.progress_of(voter)
            takes_part = self._is_alive(voter) and replica.answers(voter)
            if progress is None or not takes_part or not self._metadata.may_lead(voter):
                continue
            place = order.index(voter) if voter in order else len(order)
            found.append((-progress.match_index, place, voter))
        return min(found)[2] if found else None
