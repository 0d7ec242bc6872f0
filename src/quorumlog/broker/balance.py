"""Brings leaders back to where the placement wants them: each partition's first replica.

Every node does so for the groups that it leads itself, so nobody has to know them all. A node that
was away leads nothing when it is back; one that drains is to lead nothing. A hand-over costs the
group's producers one round trip, and only a few begin at a time.

One that fails is tried again, later each time. Where many do, the node is no good leader (its disk
is slow or full) and is left alone for a while; a few fail on any busy machine.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.topics import PartitionInfo, Standing
from quorumlog.errors import ConfigError, QuorumlogError
from quorumlog.ports import Clock, Membership, MemberState
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId

_log = structlog.get_logger()

MAX_TRANSFERS: Final = 4
"""Hand-overs that begin in one turn; the others wait for the next. While the nodes keep each other
waiting, one does: each is an election, of which such nodes have too many."""

RETURNED_SHARE: Final = 0.25
"""A node of whose hand-overs more came back is left alone, counted as if it had had
``FEWEST_GIVEN`` at least."""

FEWEST_GIVEN: Final = 8

FIRST_PATIENCE_S: Final = 5.0
"""A group that came back is handed over again after this time, then after twice as long each."""

MAX_PATIENCE_S: Final = 600.0
"""A node that gives back what it was given is left alone for this long at most; so is a group."""


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    interval_s: float = 0.25
    """From a turn in which a hand-over began to the next.

    Shorter: leaders are back sooner; longer: fewer groups change hands in the same second."""
    rest_s: float = 1.0
    """From a turn in which none did: all groups that this node leads are looked at."""
    settle_s: float = 10.0
    """A node that is back is given leaders when it was heard for so long without a break.

    Shorter: the load is even sooner; longer: a node that comes and goes moves less."""

    def __post_init__(self) -> None:
        if self.interval_s <= 0 or self.rest_s <= 0:
            raise ConfigError("interval_s and rest_s must be positive")
        if self.settle_s < 0:
            raise ConfigError("settle_s must not be negative")


@dataclass(slots=True)
class _Fit:
    """A node that may be given leaders, from ``since`` on heard without a break."""

    since: float
    patience_s: float
    given_from: float
    """Not before this: it did not keep what it was given."""
    given: int = 0
    """Hand-overs to it of this round: ``settle_s`` without any end one."""
    given_at: float = 0.0
    """The last of them."""
    returned: int = 0


@dataclass(slots=True)
class _Given:
    """The last hand-over of one group."""

    target: NodeId
    at: float
    patience_s: float
    came_back: bool = False
    again_from: float = 0.0
    """Where it came back."""


class LeaderBalance:
    """One task (:meth:`run`) looks at the groups that this node leads."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        membership: Membership,
        clock: Clock,
        config: BalanceConfig,
    ) -> None:
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._membership = membership
        self._clock = clock
        self._config = config
        self._fit: dict[NodeId, _Fit] = {}
        self._given: dict[GroupId, _Given] = {}
        """Until a group is handed to another, or its node was away."""

    async def run(self) -> None:
        """Turn after turn."""
        begun = 0
        while True:
            await asyncio.sleep(self._config.interval_s if begun else self._config.rest_s)
            begun = self.run_once()

    def run_once(self) -> int:
        """Hand over what others are to lead, as far as they can. How many hand-overs began."""
        now = self._clock.monotonic_s()
        self._look_who_is_fit(now)
        own = self._metadata.node(self._node_id)
        if own is None or own.standing is not Standing.ACTIVE:
            return 0  # whoever it drains to is chosen elsewhere
        for group in self._given.keys() - self._host.replicas.keys():
            del self._given[group]
        begun = 0
        limit = MAX_TRANSFERS if self._host.patience_s == 0 else 1
        for group, replica in tuple(self._host.replicas.items()):
            if not replica.serving or replica.transferring:
                continue
            self._judge(group, now)
            target = self._target(replica, now) if begun < limit else None
            if target is not None:
                begun += self._hand_over(replica, target, now)
        return begun

    def _look_who_is_fit(self, now: float) -> None:
        alive = {
            member.tags.get("id")
            for member in self._membership.members()
            if member.state is MemberState.ALIVE
        }
        for node in self._metadata.nodes():
            is_fit = (
                node.id in alive and node.standing is Standing.ACTIVE and self._host.hears(node.id)
            )
            if not is_fit:
                self._fit.pop(node.id, None)
            elif node.id not in self._fit:
                settle_s = self._config.settle_s
                self._fit[node.id] = _Fit(now, max(settle_s, 1.0), now + settle_s)

    def _judge(self, group: GroupId, now: float) -> None:
        """This node leads ``group``: if it was given away, it came back or never left."""
        given = self._given.get(group)
        if given is None or given.came_back:
            return
        fit = self._fit.get(given.target)
        if fit is None or fit.since > given.at:
            del self._given[group]  # who had it was away: no wonder
            return
        given.came_back = True
        given.again_from = now + given.patience_s
        if given.at < fit.given_from:
            return  # it is left alone for others that came back like this one
        fit.returned += 1
        if fit.returned > RETURNED_SHARE * max(fit.given, FEWEST_GIVEN):
            fit.patience_s = min(2 * fit.patience_s, MAX_PATIENCE_S)
            fit.given_from = now + fit.patience_s
            fit.given = fit.returned = 0
            _log.info("leaders_came_back", node=given.target, again_after_s=fit.patience_s)

    def _target(self, replica: Replica, now: float) -> NodeId | None:
        """Who is to lead the group instead of this node and can do so at once."""
        partition = self._metadata.group(replica.group)
        leadership = replica.core.leadership
        if partition is None or leadership is None:
            return None
        target = self._preferred(partition)
        if target == self._node_id or target not in replica.core.members.voters:
            return None
        fit, progress = self._fit.get(target), leadership.progress_of(target)
        if fit is None or progress is None or now < fit.given_from or not replica.answers(target):
            return None
        given = self._given.get(replica.group)
        if given is not None and given.target == target and now < given.again_from:
            return None
        return target if progress.match_index == replica.log.last_index else None

    def _preferred(self, partition: PartitionInfo) -> NodeId:
        """The first replica, of those that may lead at all; whatever there is otherwise."""
        for node_id in partition.replicas:
            node = self._metadata.node(node_id)
            if node is not None and node.standing is Standing.ACTIVE:
                return node_id
        return partition.replicas[0]

    def _hand_over(self, replica: Replica, target: NodeId, now: float) -> bool:
        try:
            replica.transfer_leadership(target)
        except QuorumlogError as error:
            # Its disk is full, or it closes: whoever leads next does this.
            _log.debug("leader_not_handed_over", group=replica.group, error=str(error))
            return False
        before = self._given.get(replica.group)
        patience_s = FIRST_PATIENCE_S
        if before is not None and before.target == target:
            patience_s = min(2 * before.patience_s, MAX_PATIENCE_S)
        self._given[replica.group] = _Given(target, now, patience_s)
        fit = self._fit[target]
        if now - fit.given_at >= self._config.settle_s:
            fit.given = fit.returned = 0
        fit.given, fit.given_at = fit.given + 1, now
        return True
