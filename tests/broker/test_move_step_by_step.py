"""Replicas on the move, and somebody who is lost, or another order, at each single step of it.

A step is a command or a configuration of the group that moves, as it is appended and as it is
committed. A run without a fault says how many there are; then there is a run for each. Whatever
happens, in the end every group is where the metadata want it, nobody else has anything, and nothing
is lost; the checkers of the simulator look at every replica after every turn.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.topics import Standing
from quorumlog.log.batch import Kind
from quorumlog.types import METADATA_GROUP, GroupId, NodeId
from sim.node import SimNode
from support.moving_cluster import MovingCluster

AWAY_S = 1.0

Order = Callable[[MovingCluster], Coroutine[Any, Any, object]]
Strike = Callable[[MovingCluster], object]


class Steps:
    """Counts them from now on, and calls ``strike`` at number ``strike_at``."""

    def __init__(
        self, cluster: MovingCluster, strike_at: int = 0, strike: Strike = lambda cluster: None
    ) -> None:
        self.count = 0
        self._strike_at = strike_at
        self._strike = strike
        self._cluster = cluster
        self._group = cluster.group
        self._counted: dict[GroupId, tuple[int, int]] = {}
        self._seen = self._look()
        cluster.after_turn = self._after_turn

    def _look(self) -> tuple[int, ...]:
        groups = (METADATA_GROUP, self._group)
        return tuple(
            count(group) for group in groups for count in (self._committed, self._appended)
        )

    def _committed(self, group: GroupId) -> int:
        found = self._cluster.checker.history(group).committed
        counted, count = self._counted.get(group, (0, 0))
        count += sum(each.header.kind in (Kind.COMMAND, Kind.CONFIG) for each in found[counted:])
        self._counted[group] = len(found), count
        return count

    def _appended(self, group: GroupId) -> int:
        leader = self._cluster.leader(group)
        if leader is None:
            return 0
        replica = self._cluster.replica(leader, group)
        is_metadata = group == METADATA_GROUP
        return int(replica.log.last_index if is_metadata else replica.core.members_index)

    def _after_turn(self) -> None:
        found = self._look()
        if found != self._seen:
            self._seen = found
            self.count += 1
            if self.count == self._strike_at:
                self._strike(self._cluster)


@cache
def count_steps(order: Order, goal: Callable[[MovingCluster], None]) -> int:
    """Of a run in which nothing fails."""
    counts: list[int] = []

    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        steps = Steps(cluster)
        await order(cluster)
        await cluster.until_whole()
        goal(cluster)
        counts.append(steps.count)

    MovingCluster(5).run(scenario)
    # Two commands and three configurations at least, and some were seen before they were committed.
    assert counts[0] >= 8
    return counts[0]


def strike_at_each_step(
    order: Order,
    strike: Strike,
    goal: Callable[[MovingCluster], None],
    mend: Order | None = None,
) -> None:
    """``goal`` is the end of a run without a fault, ``mend`` what the operator does after one."""
    steps = count_steps(order, is_drained if order is drain else is_moved)
    for number in range(1, steps + 1):

        async def scenario(cluster: MovingCluster, number: int = number) -> None:
            await cluster.start("n1", "n2", "n3")
            counted = Steps(cluster, number, strike)
            await order(cluster)
            await cluster.until(lambda: counted.count >= number)
            if mend is not None:
                await mend(cluster)
            await cluster.until_whole()
            # What was struck may be cut off only now.
            await asyncio.sleep(AWAY_S)
            await cluster.until_whole()
            goal(cluster)

        try:
            MovingCluster(5).run(scenario)
        except BaseException as error:
            error.add_note(f"struck at step {number} of {steps}")
            raise


# -- who is lost -----------------------------------------------------------------------------------


def lose(node: SimNode | None, cluster: MovingCluster) -> None:
    """By a power cut; it comes back a little later."""
    if node is not None:
        cluster.crash(node)
        cluster.restart(node, AWAY_S)


def lose_metadata_leader(cluster: MovingCluster) -> None:
    lose(cluster.leader(), cluster)


def lose_group_leader(cluster: MovingCluster) -> None:
    lose(cluster.leader(cluster.group), cluster)


def depose_metadata_leader(cluster: MovingCluster) -> None:
    leader = cluster.leader()
    if leader is not None:
        cluster.isolate(leader, AWAY_S)


def depose_group_leader(cluster: MovingCluster) -> None:
    leader = cluster.leader(cluster.group)
    if leader is not None:
        cluster.isolate(leader, AWAY_S)


def lose_target(cluster: MovingCluster) -> None:
    lose(cluster.nodes[NodeId("n4")], cluster)


def lose_source(cluster: MovingCluster) -> None:
    lose(cluster.nodes[NodeId("n3")], cluster)


STRIKES = [
    lose_metadata_leader,
    lose_group_leader,
    depose_metadata_leader,
    depose_group_leader,
    lose_target,
    lose_source,
]


# -- moves -----------------------------------------------------------------------------------------


async def move(cluster: MovingCluster) -> None:
    await cluster.move("n4", "n5", "n2")


def is_moved(cluster: MovingCluster) -> None:
    assert cluster.partition.replicas == ("n4", "n5", "n2")


async def drain(cluster: MovingCluster) -> None:
    message = pb.DrainNode(node="n1", replicas=True, candidates=cluster.names)
    await cluster.order(pb.Command(drain_node=message))


def is_drained(cluster: MovingCluster) -> None:
    assert set(cluster.partition.replicas) > {"n2", "n3"}
    assert "n1" not in cluster.partition.replicas


@pytest.mark.parametrize("strike", STRIKES)
def test_a_move_ends_whoever_is_lost_at_whatever_step(strike: Strike) -> None:
    strike_at_each_step(move, strike, is_moved)


@pytest.mark.parametrize("strike", STRIKES[:2])
def test_a_drain_ends_whichever_leader_is_lost_at_whatever_step(strike: Strike) -> None:
    strike_at_each_step(drain, strike, is_drained)


# -- orders that come in between -------------------------------------------------------------------


def give(order: Order) -> Strike:
    """At this step, by another operator."""

    def strike(cluster: MovingCluster) -> None:
        cluster.loop.call_outside(0.0, cluster.begin, order)

    return strike


async def undo_drain(cluster: MovingCluster) -> None:
    await cluster.order(pb.Command(drain_node=pb.DrainNode(node="n1", undo=True)))


async def move_elsewhere(cluster: MovingCluster) -> None:
    await cluster.move("n5", "n1", "n3")


def is_undone(cluster: MovingCluster) -> None:
    node = cluster.metadata.node(NodeId("n1"))
    assert node is not None
    assert node.standing is Standing.ACTIVE
    assert len(cluster.partition.replicas) == 3


def is_elsewhere(cluster: MovingCluster) -> None:
    assert cluster.partition.replicas == ("n5", "n1", "n3")


def test_a_drain_that_is_undone_at_whatever_step_leaves_a_whole_group() -> None:
    strike_at_each_step(drain, give(undo_drain), is_undone)


def test_an_order_to_move_elsewhere_is_followed_from_whatever_step() -> None:
    strike_at_each_step(move, give(move_elsewhere), is_elsewhere)


def test_a_target_that_is_gone_for_good_is_left_for_another_from_whatever_step() -> None:
    async def mend(cluster: MovingCluster) -> None:
        target = cluster.nodes[NodeId("n4")]
        await cluster.until(lambda: not target.up)
        await asyncio.sleep(AWAY_S)
        # The group serves, wherever it stands.
        await cluster.led()
        await move_elsewhere(cluster)
        await cluster.until(lambda: cluster.partition.replicas == ("n5", "n1", "n3"))
        assert not target.up
        cluster.restart(target)

    strike_at_each_step(
        move, lambda cluster: cluster.crash(cluster.nodes[NodeId("n4")]), is_elsewhere, mend
    )
