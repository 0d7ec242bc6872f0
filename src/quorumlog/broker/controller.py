"""The metadata group on this node: takes commands, keeps the node list true, opens partitions.

Gossip proposes, Raft decides: the leader of group 0 turns what gossip says of nodes (a new one, a
new address) into commands; a suspicion alone changes nothing. What the committed metadata says
about this node's partitions is carried out by one reconciling task, on every node.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata import (
    Applied,
    Change,
    MetadataState,
    NodeInfo,
    PartitionRemoved,
    raise_for,
)
from quorumlog.broker.metadata_command import check_command, parse_command
from quorumlog.broker.partition import PartitionMachine
from quorumlog.errors import NotLeader, OutcomeUnknown, QuorumlogError, Unavailable
from quorumlog.log.batch import Batch, BatchHeader, Draft, Kind
from quorumlog.log.log import LogConfig
from quorumlog.ports import Membership, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, NodeId

_log = structlog.get_logger()

_TEND_INTERVAL_S = 1.0
_RETRY_S = 0.1
_PROPOSE_TIMEOUT_S = 10.0
_FIRST_CAMPAIGNS_S = (0.02, 0.1)
"""A new partition's first replica asks for votes this long after it opened, unless there is a
leader: others open theirs in the same moment, and the first one is where the placement wants the
leader."""


class PeerCalls(Protocol):
    """Requests between nodes."""

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        """Send a metadata command to ``peer``; an encoded ``Result``.

        Raises NotLeader, Unavailable (it never arrived), OutcomeUnknown.
        """
        ...


class MetadataMachine:
    """A replication ``StateMachine`` over :class:`MetadataState`; results are ``Result``
    messages."""

    def __init__(self, metadata: MetadataState, applied: Callable[[], None]) -> None:
        """``applied`` is called for every batch, whatever it holds."""
        self._metadata = metadata
        self._applied = applied

    def apply(self, batch: Batch) -> metadata_pb2.Result | None:
        self._applied()
        if batch.header.kind is not Kind.COMMAND:
            return None
        return self._metadata.apply(bytes(batch.body), batch.header.index)

    def appended(self, header: BatchHeader) -> None:
        """Nothing depends on what is not committed."""

    def leadership_lost(self) -> None:
        """Nothing was kept of what is not committed."""


def register(node: NodeInfo) -> metadata_pb2.Command:
    """The command that makes ``node`` known, or known with what has changed."""
    message = metadata_pb2.Node(
        id=node.id, name=node.name, address=node.address, version=node.version
    )
    return metadata_pb2.Command(register_node=metadata_pb2.RegisterNode(node=message))


class Controller:
    """Owns group 0's replica and everything that follows from its state."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        membership: Membership,
        calls: PeerCalls,
        log_config: Callable[[str], LogConfig],
    ) -> None:
        """``log_config`` makes the settings of a partition's log from its topic's fsync policy."""
        self.node_id = node_id
        self.cluster_id = ""
        self.metadata = MetadataState()
        self.partitions: dict[GroupId, PartitionMachine] = {}
        self._host = host
        self._membership = membership
        self._calls = calls
        self._log_config = log_config
        self._fsync: dict[GroupId, str] = {}
        self._removed: list[GroupId] = []
        self._replica: Replica | None = None
        self._first_last_index = 0
        self._caught_up = False
        self._changed = asyncio.Event()
        self._tend = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.metadata.on_change(self._metadata_changed)

    async def start(self, cluster_id: str, members: Members) -> None:
        """Open group 0, whose first configuration is ``members``, and begin to follow it."""
        self.cluster_id = cluster_id
        self._replica = await self._host.open_group(
            METADATA_GROUP,
            members,
            MetadataMachine(self.metadata, self._batch_applied),
            self._log_config("always"),
        )
        self._first_last_index = self._replica.log.last_index
        self._membership.on_change(lambda member: self._tend.set())
        self._tasks = [
            asyncio.create_task(self._forever(self._reconcile, self._changed, None)),
            asyncio.create_task(self._forever(self._tend_nodes, self._tend, _TEND_INTERVAL_S)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def replica(self) -> Replica:
        if self._replica is None:
            raise Unavailable("this node is not in a cluster yet: try again in a moment")
        return self._replica

    @property
    def caught_up(self) -> bool:
        """Whether this node knows the metadata as of its start: before, "there is no such topic"
        may be a mistake."""
        if not self._caught_up and self._replica is not None:
            core, log = self._replica.core, self._replica.log
            self._caught_up = (
                core.leader_id is not None
                and self._replica.applied_index >= min(self._first_last_index, log.last_index)
                and self._replica.applied_index >= core.commit_index > 0
            )
        return self._caught_up

    # -- commands ------------------------------------------------------------------------------

    async def propose(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        """Have ``command`` applied, by way of the leader; typed errors as the state decided.

        Raises:
            Unavailable: no leader within 10 s; nothing was changed.
            OutcomeUnknown: it was sent and no answer came.
        """
        encoded = command.SerializeToString(deterministic=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PROPOSE_TIMEOUT_S
        while True:
            try:
                result = await self._propose_once(encoded)
                raise_for(result)
                return result
            except (NotLeader, Unavailable) as error:
                if loop.time() + _RETRY_S > deadline:
                    raise Unavailable(
                        f"the cluster's metadata has no leader now ({error}): is a majority of its "
                        "voters up? See `quorumlog cluster status`"
                    ) from error
            await asyncio.sleep(_RETRY_S)

    async def propose_here(self, encoded: bytes) -> metadata_pb2.Result:
        """Apply a command as the leader.

        Raises:
            InvalidArgument: this release does not know the command, or it can never be done.
            NotLeader, and what :meth:`Replica.propose` raises.
        """
        check_command(parse_command(encoded))
        result = await asyncio.wait_for(
            self.replica.propose(Draft.of(encoded, kind=Kind.COMMAND)), _PROPOSE_TIMEOUT_S
        )
        if not isinstance(result, metadata_pb2.Result):
            raise OutcomeUnknown("the command was applied and its result is not known")
        return result

    async def _propose_once(self, encoded: bytes) -> metadata_pb2.Result:
        if self.replica.serving:
            try:
                return await self.propose_here(encoded)
            except TimeoutError:
                raise OutcomeUnknown("the command was not committed in time") from None
        leader = self.replica.core.leader_id
        if leader is None or leader == self.node_id:
            raise NotLeader("the metadata group has no leader now")
        return metadata_pb2.Result.FromString(await self._calls.propose(leader, encoded))

    async def wait_applied(
        self, condition: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait until ``condition`` holds, looked at whenever this node applied a batch."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    changed = asyncio.get_running_loop().create_future()
                    self._waiting.append(changed)
                    await changed
        except TimeoutError:
            return condition()
        return True

    # -- following the metadata ----------------------------------------------------------------

    def _metadata_changed(self, change: Change) -> None:
        if isinstance(change, Applied):
            return
        if isinstance(change, PartitionRemoved):
            self._removed.append(change.partition.group)
        self._changed.set()

    def _batch_applied(self) -> None:
        # The replica counts the batch as applied, and may serve, only after this call.
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._tend.set()
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)

    async def _reconcile(self) -> None:
        """Make the open groups those that the metadata gives this node."""
        while self._removed:
            group = self._removed[0]
            self.partitions.pop(group, None)
            await self._host.remove_group(group)
            self._removed.pop(0)
        for topic, partition in self.metadata.groups_of(self.node_id):
            group, fsync = partition.group, topic.config.fsync
            if group in self._host.replicas:
                if self._fsync[group] == fsync:
                    continue
                await self._host.close_group(group)
            machine = PartitionMachine()
            self.partitions[group] = machine
            self._fsync[group] = fsync
            replica = await self._host.open_group(
                group, Members(partition.replicas), machine, self._log_config(fsync)
            )
            if replica.log.last_index == 0 and partition.replicas[0] == self.node_id:
                self._campaign_first(replica)

    def _campaign_first(self, replica: Replica) -> None:
        def campaign() -> None:
            if replica.core.leader_id is None:
                replica.campaign()

        for delay_s in _FIRST_CAMPAIGNS_S:
            asyncio.get_running_loop().call_later(delay_s, campaign)

    # -- tending the node list, at the leader ----------------------------------------------------

    async def _tend_nodes(self) -> None:
        if not self.replica.serving:
            return
        for member in self._membership.members():
            tags = member.tags
            if member.state is not MemberState.ALIVE or tags.get("cluster") != self.cluster_id:
                continue
            node = NodeInfo(NodeId(tags["id"]), member.name, tags["rpc"], tags.get("ver", ""))
            if self.metadata.node(node.id) != node:
                command = register(node)
                raise_for(await self.propose_here(command.SerializeToString(deterministic=True)))
        await self._add_learner()

    async def _add_learner(self) -> None:
        """Every registered node follows the metadata: who does not vote on it learns it."""
        members = self.replica.core.members
        known = {*members.voters, *members.learners}
        for node in self.metadata.nodes():
            if node.id not in known:
                learners = (*members.learners, NodeId(node.id))
                await self.replica.propose_members(Members(members.voters, learners))
                return

    async def _forever(
        self, work: Callable[[], Awaitable[None]], wake: asyncio.Event, interval_s: float | None
    ) -> None:
        """Run ``work`` whenever ``wake`` is set or the interval went by; again soon if it
        failed."""
        while True:
            try:
                async with asyncio.timeout(interval_s):
                    await wake.wait()
            except TimeoutError:
                pass
            wake.clear()
            try:
                await work()
            except (QuorumlogError, OSError, TimeoutError) as error:
                _log.warning("controller_retried", work=work.__name__, error=str(error))
                await asyncio.sleep(_RETRY_S * 5)
                wake.set()
