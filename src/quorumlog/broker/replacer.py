"""Has the replicas of a node that failed made anew on others, where the cluster is set to do so.

At the metadata's leader, which counts by what it heard itself (:mod:`quorumlog.broker.silence`). An
absence that an earlier leader had recorded stands for the first half of the time; the other half
this one has to have watched in any case. Gossip can keep a node from being replaced, never cause
it.
The orders are those that an operator would give (``AssignReplicas``, ``SetVoters``), a few
partitions at a time, each asked for its safety before; all else is done by the partitions' leaders.
The node stays a member: back again, it sees by the metadata what is not its own any more.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.gossip_view import GossipView
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.presence import counted_silence_s, recorded_absence_s
from quorumlog.broker.replacement import (
    Orders,
    Replacement,
    Stage,
    find_obstacle,
    find_orders,
    holds_anything,
)
from quorumlog.broker.silence import SilenceWatch
from quorumlog.broker.topics import NodeInfo, Standing
from quorumlog.errors import IdentityError, InvalidArgument, NotFound, UnsafeChange
from quorumlog.ports import Clock, MemberState
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId

MAX_MOVING: Final = 4
"""Partitions of a failed node that are ordered to be elsewhere at a time."""

STALLED_S: Final = 600.0
"""A move that takes longer keeps no other from beginning: whatever it waits for, a replica that is
damaged or a disk that is full, may be its own. How many catch up at a time a leader bounds, too."""

REFUSED_S: Final = 10.0
"""After a look at all partitions that found nothing to order, until the next one."""

_REFUSALS: Final = (InvalidArgument, NotFound, IdentityError, UnsafeChange)
"""What the metadata say to an order that they would not take later either."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Order:
    """What was ordered for a partition: enough to take it back."""

    node: NodeId
    move: int
    before: tuple[NodeId, ...]
    given_s: float


class Replacer:
    """One task calls :meth:`tend` about once a second."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        metadata: MetadataState,
        gossip: GossipView,
        replica: Callable[[], Replica],
        hears: Callable[[NodeId], bool],
        watch: SilenceWatch,
        propose: Callable[[metadata_pb2.Command], Awaitable[metadata_pb2.Result]],
        clock: Clock,
    ) -> None:
        """``replica`` gives that of group 0; ``hears`` says whether there was a sign of life of a
        node within an election timeout; ``watch`` is this replacer's own; ``propose`` applies a
        command here, as the leader."""
        self._node_id = node_id
        self._metadata = metadata
        self._gossip = gossip
        self._replica = replica
        self._hears = hears
        self._watch = watch
        self._propose = propose
        self._clock = clock
        self._orders: dict[GroupId, _Order] = {}
        self._look_again_s: dict[NodeId, float] = {}
        self._found: dict[NodeId, Replacement] = {}

    @property
    def found(self) -> tuple[Replacement, ...]:
        """The nodes that this one, as the metadata's leader, did not hear when it last looked."""
        return tuple(self._found[node] for node in sorted(self._found))

    async def tend(self) -> None:
        """Look who is not heard, and take the next step. Raises what proposing raises."""
        replica = self._replica()
        grace_s = self._metadata.settings.replace_failed_after_s
        now = self._clock.monotonic_s()
        if not replica.serving or not grace_s:
            self._stop()
            return
        if replica.core.term != self._watch.term:
            self._stop()
        silent = self._count(self._watch.look(), grace_s)
        for group, order in sorted(self._orders.items()):
            if order.node not in silent:
                await self._take_back(group, order)
        for of_nodes in (self._found, self._look_again_s):
            for node in of_nodes.keys() - silent.keys():
                del of_nodes[node]
        for node, silent_s in silent.items():
            info = self._metadata.node(node)
            if info is None or info.standing is Standing.LEAVING:
                # An operator removes it.
                self._found.pop(node, None)
                self._look_again_s.pop(node, None)
            elif silent_s < grace_s:
                held = len(self._metadata.groups_of(node))
                self._note(Replacement(node, Stage.COUNTING, silent_s, grace_s - silent_s, held))
            else:
                self._note(await self._replace(replica, info, silent, now))

    def _stop(self) -> None:
        self._watch.stop()
        self._found.clear()
        self._orders.clear()
        self._look_again_s.clear()

    def _count(self, observed: Mapping[NodeId, float], grace_s: float) -> dict[NodeId, float]:
        """The nodes that are not heard, and for how many seconds they count as that."""
        silent: dict[NodeId, float] = {}
        for node in self._metadata.nodes():
            observed_s = observed.get(node.id)
            if observed_s is not None:
                # What was recorded before this leader heard it is over.
                is_over = self._watch.has_heard(node.id)
                recorded_s = 0.0 if is_over else recorded_absence_s(node, self._clock)
                silent[node.id] = counted_silence_s(observed_s, recorded_s, grace_s)
        return silent

    # -- one node ------------------------------------------------------------------------------

    async def _replace(
        self, replica: Replica, node: NodeInfo, silent: Mapping[NodeId, float], now: float
    ) -> Replacement:
        """Take the next steps for a node whose time is over, and say how far it is."""
        metadata, voting = self._metadata, replica.core.members.voting
        found = Replacement(
            node.id, Stage.REPLACED, silent[node.id], partitions=len(metadata.groups_of(node.id))
        )
        if not holds_anything(metadata, voting, node.id):
            return found
        others_down = [
            each for each in silent if each != node.id and holds_anything(metadata, voting, each)
        ]
        gossip = self._gossip.states()
        obstacle = find_obstacle(metadata, node, others_down, gossip)
        if obstacle:
            return replace(found, stage=Stage.REFUSED, reason=obstacle)
        moving = self._count_moving(now)
        refusals: tuple[str, ...] = ()
        if moving < MAX_MOVING and now >= self._look_again_s.get(node.id, now):
            alive = [
                each.id
                for each in metadata.nodes()
                if each.id == self._node_id
                or (gossip.get(each.id) is MemberState.ALIVE and self._hears(each.id))
            ]
            lacking = self._gossip.lacking()
            takers = [each for each in alive if each not in lacking]
            orders = find_orders(metadata, node.id, voting, alive, takers, MAX_MOVING - moving)
            moving += await self._order(node.id, orders)
            refusals = orders.refusals
            if not moving:
                self._look_again_s[node.id] = now + REFUSED_S
        elif not moving:
            return replace(self._found[node.id], silent_s=found.silent_s)
        is_under_way = moving or not refusals
        reason = refusals[0] if refusals else ""
        if len(refusals) > 1:
            reason += f" (and {len(refusals) - 1} more like this)"
        return replace(found, stage=Stage.MOVING if is_under_way else Stage.REFUSED, reason=reason)

    async def _order(self, node: NodeId, orders: Orders) -> int:
        """Give the orders, as long as ``node`` is not heard; how many there were."""
        given = 0
        if orders.voters:
            voters = metadata_pb2.SetVoters(
                voters=orders.voters, voters_index=self._metadata.voters_index
            )
            await self._give(metadata_pb2.Command(set_voters=voters))
            _log.warning("failed_node_lost_its_vote", node=node, voters=orders.voters)
            given += 1
        for topic, partition, wanted in orders.moves:
            if self._hears(node):
                break
            result = await self._assign(partition.group, wanted)
            self._orders[partition.group] = _Order(
                node, result.index, partition.target, self._clock.monotonic_s()
            )
            given += 1
            _log.warning(
                "failed_replica_replaced",
                node=node,
                topic=topic.name,
                partition=partition.partition,
                replicas=wanted,
            )
        return given

    async def _take_back(self, group: GroupId, order: _Order) -> None:
        """The node is heard again: it keeps what has not moved yet. Where it may not, since it is
        drained by now, or another of them is gone, the move goes on."""
        partition = self._metadata.group(group)
        is_under_way = (
            partition is not None and bool(partition.wanted) and partition.move == order.move
        )
        if is_under_way and self._metadata.node(order.node) is not None:
            try:
                await self._assign(group, order.before)
            except _REFUSALS as error:
                _log.warning(
                    "replacement_not_taken_back", node=order.node, group=group, error=str(error)
                )
            else:
                _log.info("replacement_given_up", node=order.node, group=group)
        del self._orders[group]

    async def _assign(self, group: GroupId, wanted: Sequence[NodeId]) -> metadata_pb2.Result:
        message = metadata_pb2.AssignReplicas(group=group, wanted=wanted)
        return await self._give(metadata_pb2.Command(assign_replicas=message))

    async def _give(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        result = await self._propose(command)
        self._watch.went_on()
        return result

    def _count_moving(self, now: float) -> int:
        """Orders that are under way; those that were carried out are forgotten."""
        for group, order in tuple(self._orders.items()):
            partition = self._metadata.group(group)
            if partition is None or not partition.wanted or partition.move != order.move:
                del self._orders[group]
        return sum(now - order.given_s < STALLED_S for order in self._orders.values())

    def _note(self, found: Replacement) -> None:
        before = self._found.get(found.node)
        self._found[found.node] = found
        if before is None or (before.stage, before.reason) != (found.stage, found.reason):
            _log.warning(
                "node_not_heard",
                node=found.node,
                silent_s=round(found.silent_s, 1),
                replacement=found.stage.value,
                partitions=found.partitions,
                reason=found.reason,
            )
