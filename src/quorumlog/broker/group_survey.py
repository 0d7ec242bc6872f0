"""Asking all nodes for the groups that they lead."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import structlog

from quorumlog.broker.led_groups import LedGroup, LedGroups
from quorumlog.broker.peer_calls import PeerCalls
from quorumlog.errors import QuorumlogError
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId

MAX_ASKED: Final = 5000
"""Groups in one question: the answer is about 1 MB then."""

PATIENCE_S: Final = 3.0
"""For so long a group may be without a leader because one is being elected."""

_RETRY_S: Final = 0.25

_log = structlog.get_logger()


class GroupSurvey:
    """At any node; keeps nothing."""

    def __init__(self, *, node_id: NodeId, host: GroupHost, calls: PeerCalls) -> None:
        self._node_id = node_id
        self._host = host
        self._calls = calls

    def here(self, groups: Iterable[GroupId]) -> dict[GroupId, LedGroup]:
        """Those of ``groups`` that this node leads."""
        replicas = ((group, self._host.replicas.get(group)) for group in groups)
        return {
            group: _as_seen_by(self._node_id, replica)
            for group, replica in replicas
            if replica is not None and replica.serving
        }

    async def ask(self, groups: Sequence[GroupId], nodes: Collection[NodeId]) -> LedGroups:
        """The ``groups`` as their leaders among ``nodes`` see them.

        Where all answer and nobody leads a group, they are asked again for a while.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        found: dict[GroupId, LedGroup | None] = {}
        while True:
            missing = [group for group in groups if group not in found]
            found |= self.here(missing)
            answers = await asyncio.gather(
                *(self._ask_one(node, missing) for node in nodes if node != self._node_id)
            )
            for answer in answers:
                for group, seen in (answer or {}).items():
                    known = found.get(group)
                    if known is None or known.term < seen.term:
                        found[group] = seen
            missing = [group for group in missing if group not in found]
            if not missing or None in answers:
                return found
            if loop.time() + _RETRY_S > deadline:
                return found | dict.fromkeys(missing)
            await asyncio.sleep(_RETRY_S)

    async def _ask_one(
        self, node: NodeId, groups: Sequence[GroupId]
    ) -> dict[GroupId, LedGroup] | None:
        """None: it does not answer."""
        found: dict[GroupId, LedGroup] = {}
        for first in range(0, len(groups), MAX_ASKED):
            try:
                found |= await self._calls.led_groups(node, groups[first : first + MAX_ASKED])
            except QuorumlogError as error:
                _log.info("led_groups_not_known", node=node, error=str(error))
                return None
        return found


def _as_seen_by(leader: NodeId, replica: Replica) -> LedGroup:
    core = replica.core
    members = core.members
    silent = (node for node in members.everybody if node != leader and not replica.answers(node))
    return LedGroup(core.term, members.voters, members.outgoing, frozenset(silent))
