"""Replicas and voters on the move: an operator who orders it, and what must hold meanwhile."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from quorumlog.api._pb import peer_pb2
from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_changes import Change, PartitionAdded, PartitionChanged
from quorumlog.broker.topics import Standing
from quorumlog.errors import QuorumlogError
from quorumlog.log.batch import Batch, Kind
from quorumlog.replication.core.members import Members
from quorumlog.types import METADATA_GROUP, GroupId, NodeId
from sim.history import GroupHistory, Violation
from sim.loop import SimLoop
from sim.process import Process
from sim.rpc import RpcFabric
from sim.trace import Trace

_METHOD = "/quorumlog.peer.v1.Peer/Propose"
_CALL_S = 12.0


class Machine(Protocol):
    """A node, as this needs it."""

    gone: bool

    @property
    def is_lost(self) -> bool: ...


class MoveWatch:
    """Follows the committed metadata: who may delete what, whether reports are true, and who is
    removed."""

    def __init__(
        self, nodes: Mapping[NodeId, Machine], histories: Mapping[int, GroupHistory]
    ) -> None:
        """Both grow, with what there is; ``nodes`` are those the cluster is formed with so far."""
        self._nodes = nodes
        self._histories = histories
        self._metadata = MetadataState()
        self._metadata.on_change(self._changed)
        self._first = {METADATA_GROUP: tuple(nodes)}
        """Whom each group began with."""
        self._let_go: set[tuple[NodeId, int]] = set()
        self._returned: set[tuple[NodeId, int]] = set()

    def committed(self, batch: Batch) -> None:
        """A batch of the metadata is. Raises Violation for a report of what is not so, and where
        a group loses its majority with a node that is removed."""
        if batch.header.kind is not Kind.COMMAND:
            return
        command = pb.Command.FromString(bytes(batch.body))
        for moved in command.replicas_moved.moved:
            self._check_report(moved)
        self._metadata.apply(bytes(batch.body), batch.header.index)
        node = NodeId(command.forget_node.node)
        if self._metadata.is_removed(node):
            self._nodes[node].gone = True
            self._check_removed(node)

    def left(self, node: NodeId, group: int) -> bool:
        """``node`` has deleted what it had of ``group``. Whether it might."""
        allowed = (node, group) in self._let_go
        self._let_go.discard((node, group))
        self._returned.add((node, group))
        return allowed

    def may_recover(self, node: NodeId, group: int) -> bool:
        """Whether its replica may be one that left and came back."""
        return (node, group) in self._returned

    def _changed(self, change: Change) -> None:
        if isinstance(change, PartitionAdded):
            self._first[change.partition.group] = change.partition.replicas
        if isinstance(change, PartitionAdded | PartitionChanged):
            partition = change.partition
            self._let_go |= {
                (node, partition.group) for node in self._nodes if node not in partition.holders
            }

    def _check_removed(self, removed: NodeId) -> None:
        """``removed`` had nothing any more, and of every group's members a majority is left: of
        those that are committed, and while they are joint of both sides."""
        if self._metadata.groups_of(removed):
            raise Violation(f"{removed} is removed and has replicas still")
        for group, history in self._histories.items():
            members = members_at(history, self._first[GroupId(group)], len(history.committed))
            if group == METADATA_GROUP and removed in members.voting:
                raise Violation(f"{removed} is removed and votes on the metadata")
            for voters in (members.voters, members.outgoing):
                lost = [node for node in voters if self._nodes[node].is_lost]
                if len(lost) * 2 >= max(1, len(voters)):
                    raise Violation(f"group {group} lost {lost} of {members}")

    def _check_report(self, moved: pb.ReplicasMoved.Moved) -> None:
        """The group's log says what the report says, committed."""
        partition = self._metadata.group(GroupId(moved.group))
        history = self._histories.get(moved.group)
        if partition is None or history is None or partition.move != moved.move:
            return
        said = " ".join(str(moved).split())
        if len(history.committed) < moved.settled_index:
            raise Violation(f"{said} is reported and not committed")
        members = members_at(history, self._first[partition.group], moved.settled_index)
        if set(members.voters) != set(moved.replicas) or members.outgoing:
            raise Violation(f"{said} is reported, committed is {members}")


def members_at(history: GroupHistory, first: tuple[NodeId, ...], index: int) -> Members:
    """The newest configuration among the committed batches through ``index``."""
    for batch in reversed(history.committed[:index]):
        if batch.header.kind is Kind.CONFIG:
            return Members.decode(batch.body)
    return Members(first)


class Operator:
    """Moves replicas, changes who votes on the metadata, drains nodes: at any time, without asking
    whether that is wise. In the end nothing is drained, and everything on three nodes."""

    def __init__(
        self,
        loop: SimLoop,
        fabric: RpcFabric,
        addresses: Mapping[NodeId, str],
        metadata: Callable[[], MetadataState],
        sizes: Sequence[int],
        pace_s: float,
        rng: random.Random,
        trace: Trace,
    ) -> None:
        """``addresses`` grows with the nodes. ``sizes``: how many replicas an order may want; one
        of them is drawn each time."""
        self.orders = 0
        self._loop = loop
        self._fabric = fabric
        self._addresses = addresses
        self._metadata = metadata
        self._sizes = sizes
        self._pace_s = pace_s
        self._rng = rng
        self._trace = trace
        self._groups: list[GroupId] = []
        self._stopping = False
        self._calm = asyncio.Event()
        self._settling = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Once all topics are there: no node may know them later, when all have just started."""
        topics = self._metadata().topics()
        self._groups = [each.group for topic in topics for each in topic.partitions]
        process = Process("operator")
        self._task = self._loop.spawn(process, self._work(process), "operate")

    async def calm_down(self) -> None:
        """Return when nothing is drained, nor will be."""
        self._stopping = True
        if self._task is not None:
            await self._calm.wait()

    async def finish(self) -> None:
        """Return when the last order is given. After :meth:`calm_down`."""
        self._settling.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self, process: Process) -> None:
        while not self._stopping:
            await asyncio.sleep(self._rng.uniform(0, self._pace_s))
            await self._order(process, self._draw())
        for node in self._metadata().nodes():
            # Of one that is being removed, that would be taken back.
            if node.standing is not Standing.LEAVING:
                undo = pb.DrainNode(node=node.id, undo=True)
                await self._insist(process, pb.Command(drain_node=undo))
        self._calm.set()
        await self._settling.wait()
        for group in self._groups:
            wanted = self._rng.sample(self._present(), 3)
            message = pb.AssignReplicas(group=group, wanted=wanted)
            await self._insist(process, pb.Command(assign_replicas=message))

    async def _insist(self, process: Process, command: pb.Command) -> None:
        while not await self._order(process, command):
            await asyncio.sleep(0.1)

    def _draw(self) -> pb.Command:
        rng, nodes, metadata = self._rng, self._present(), self._metadata()
        kind = rng.random()
        if kind < 0.15:
            message = pb.SetVoters(
                voters=rng.sample(nodes, rng.choice((3, len(nodes)))),
                voters_index=metadata.voters_index,
            )
            return pb.Command(set_voters=message)
        if kind < 0.3:
            node = rng.choice(nodes)
            return pb.Command(drain_node=pb.DrainNode(node=node, undo=rng.random() < 0.6))
        wanted = rng.sample(nodes, min(rng.choice(self._sizes), len(nodes)))
        message_of_move = pb.AssignReplicas(group=rng.choice(self._groups), wanted=wanted)
        return pb.Command(assign_replicas=message_of_move)

    def _present(self) -> list[NodeId]:
        metadata = self._metadata()
        return [node for node in self._addresses if not metadata.is_removed(node)]

    async def _order(self, process: Process, command: pb.Command) -> bool:
        """Whether some node did as ordered, or refused for good."""
        connector = self._fabric.client(process)
        request = peer_pb2.ProposeRequest(command=command.SerializeToString())
        addresses = list(self._addresses.values())
        self._rng.shuffle(addresses)
        for address in addresses:
            connection = connector.connect(address)
            try:
                reply = await connection.unary(_METHOD, request, peer_pb2.ProposeReply, _CALL_S)
            except QuorumlogError:
                continue
            result = pb.Result.FromString(bytes(reply.result))
            said = " ".join(str(command).split())
            self._trace.add(f"ordered {said}: {result.error or 'done'}")
            self.orders += not result.error
            return True
        return False


def is_settled(group: int, metadata: MetadataState, leader_members: Members) -> bool:
    """Whether a group's members are those that are wanted, and nobody else's."""
    if group == METADATA_GROUP:
        voters = metadata.voters or leader_members.voters
        return set(leader_members.voters) == set(voters) and not leader_members.outgoing
    partition = metadata.group(GroupId(group))
    if partition is None:
        return True
    return not partition.wanted and leader_members == Members(partition.replicas)
