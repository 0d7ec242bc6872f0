"""What a node does for its clients: append, fetch, find offsets, say who leads.

The gRPC services stand on this; so do the simulator and a node embedded in a program.
"""

import asyncio
from collections.abc import Sequence

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.controller import Controller
from quorumlog.broker.led_groups import LedGroups
from quorumlog.broker.led_partition import LedPartition
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.note_keeper import NoteKeeper
from quorumlog.broker.notes import Notes
from quorumlog.broker.port import (
    At,
    ClusterView,
    Earliest,
    Fetch,
    Latest,
    OffsetInfo,
    PartitionStatus,
    ProduceAck,
    Start,
)
from quorumlog.broker.producers import Duplicate, InFlight
from quorumlog.broker.replacement import Replacement
from quorumlog.broker.safety import names_of
from quorumlog.broker.topics import PartitionInfo
from quorumlog.errors import (
    Corrupt,
    InvalidArgument,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    Unavailable,
    WrongExpectedOffset,
)
from quorumlog.log.batch import Draft
from quorumlog.ports import Membership, MemberState
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId

_TRANSFER_TIMEOUT_S = 5.0
_COMMIT_TIMEOUT_S = 10.0


class Broker:
    """Implements :class:`~quorumlog.broker.port.BrokerPort` over a node's replicas."""

    def __init__(
        self, *, node_id: NodeId, host: GroupHost, controller: Controller, membership: Membership
    ) -> None:
        self.node_id = node_id
        self._metadata = controller.metadata
        self._host = host
        self._controller = controller
        self._membership = membership
        self._in_flight: dict[tuple[GroupId, int], asyncio.Future[ProduceAck]] = {}
        self._notes = NoteKeeper(self._led)

    @property
    def metadata(self) -> MetadataState:
        """What the cluster has, as far as this node has applied it.

        Raises:
            Unavailable: the node has just started: its "there is no such topic" might be a mistake.
        """
        if not self._controller.caught_up:
            raise Unavailable(
                "this node is still learning the cluster's metadata: try again in a moment; "
                "if it lasts, is a majority of the cluster's voters up?"
            )
        return self._metadata

    # -- records -------------------------------------------------------------------------------

    def submit(
        self, topic: str, partition: int, draft: Draft, fencing_token: int = 0
    ) -> "asyncio.Future[ProduceAck]":
        """Append one batch; the future is done when it is committed and applied here.

        The order of calls is the order in the log. A batch that this producer sent before is not
        appended again: its first acknowledgement is given again. With a ``fencing_token`` it is
        appended only where no newer one came before; those that come later need as new a one.

        Raises (here, nothing was appended):
            UnknownTopic, PartitionOutOfRange, NotLeader, Overloaded, DiskFull, LogFenced,
            OutOfOrderSequence, DuplicateSequence, ProducerFenced, StaleFencingToken.
        The future raises:
            OutcomeUnknown, NotLeader.
        """
        led = self._led(topic, partition)
        return self._sent_before(led, draft) or self._admitted(led, draft, fencing_token)

    async def append_at(
        self, topic: str, partition: int, draft: Draft, expected_end: int, fencing_token: int = 0
    ) -> ProduceAck:
        """Append only where the partition ends at ``expected_end``; see :class:`BrokerPort`."""
        while True:
            led = self._led(topic, partition)
            outcome = self._sent_before(led, draft)
            if outcome is None and led.replica.log.end_offset == expected_end:
                outcome = self._admitted(led, draft, fencing_token)
            if outcome is not None:
                return await asyncio.shield(outcome)
            # A leader that was deposed and has not heard of it knows an old end.
            await led.read_barrier()
            _, end = led.readable
            if end != expected_end:
                raise WrongExpectedOffset(expected_end, end)
            # What stands behind it here may be lost with the leadership: then it is still the end.
            await led.replica.high_watermark.wait_above(expected_end, _COMMIT_TIMEOUT_S)

    def _sent_before(self, led: LedPartition, draft: Draft) -> "asyncio.Future[ProduceAck] | None":
        """The outcome of the batch where its producer sent it before. Raises SequenceError."""
        if not draft.producer_id:
            return None
        found = led.machine.pending.check(
            draft.producer_id, draft.producer_epoch, draft.sequence, draft.record_count
        )
        if isinstance(found, Duplicate):
            return self._acknowledged(found)
        if isinstance(found, InFlight):
            return self._in_flight[led.group, found.index]
        return None

    def _admitted(
        self, led: LedPartition, draft: Draft, fencing_token: int
    ) -> "asyncio.Future[ProduceAck]":
        if fencing_token:
            self._notes.admit(led, fencing_token)
        return self._propose(led, draft)

    def _acknowledged(self, duplicate: Duplicate) -> "asyncio.Future[ProduceAck]":
        done: asyncio.Future[ProduceAck] = asyncio.get_running_loop().create_future()
        done.set_result(ProduceAck(duplicate.base_offset, duplicate.timestamp_ms))
        return done

    def _propose(self, led: LedPartition, draft: Draft) -> "asyncio.Future[ProduceAck]":
        outcome: asyncio.Future[ProduceAck] = led.propose(draft)
        key = (led.group, int(led.replica.log.last_index))
        self._in_flight[key] = outcome

        def forget(done: "asyncio.Future[ProduceAck]") -> None:
            if self._in_flight.get(key) is done:
                del self._in_flight[key]

        outcome.add_done_callback(forget)
        return outcome

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        max_bytes: int,
        max_wait_s: float,
        allow_follower: bool = False,
    ) -> Fetch:
        """Committed batches from ``offset`` on; see :class:`BrokerPort`.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader, OffsetOutOfRange.
            Corrupt: what is damaged here is nowhere else.
        """
        info = self.metadata.partition(topic, partition)
        replica = self._leading(info) if not allow_follower else self._hosted(info)
        watermark = replica.high_watermark
        if offset == watermark.value and max_wait_s > 0:
            await watermark.wait_above(offset, max_wait_s)
            if not allow_follower:
                self._leading(info)
        start, end = replica.log.start_offset, watermark.value
        if not start <= offset <= end:
            raise OffsetOutOfRange(offset, start, end)
        if offset == end:
            return Fetch(b"", offset, start, end)
        try:
            fetched = replica.log.fetch(offset, max_bytes, end)
        except Corrupt as error:
            if not self._host.report_damage(info.group, error):
                raise
            # The others have it, and one of them leads soon.
            raise NotLeader("this node's replica of the partition is damaged") from error
        return Fetch(fetched.data, fetched.next_offset, start, end)

    async def find_offset(self, topic: str, partition: int, start: Start) -> OffsetInfo:
        """Turn a place to start at into an offset, by what was committed anywhere before the call.

        Raises as :meth:`fetch`, and Overloaded.
        """
        led = self._led(topic, partition)
        await led.read_barrier()
        first, end = led.readable
        offset: int
        if isinstance(start, Earliest):
            offset = first
        elif isinstance(start, Latest):
            offset = end
        elif isinstance(start, At):
            if not first <= start.offset <= end:
                raise OffsetOutOfRange(start.offset, first, end)
            offset = start.offset
        else:
            offset = led.replica.log.offset_for_time(start.timestamp_ms, end)
        return OffsetInfo(offset, first, end)

    async def delete_before(self, topic: str, partition: int, offset: int) -> int:
        """Delete the partition's records before ``offset``, for good; see :class:`BrokerPort`."""
        led = self._led(topic, partition)
        if offset > led.readable[1]:
            # A leader that was deposed and has not heard of it knows an old end.
            await led.read_barrier()
        start, end = led.readable
        if offset > end:
            raise OffsetOutOfRange(offset, start, end)
        if offset > start:
            draft = led.machine.start_draft(offset, free_index=0)
            try:
                async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                    await led.propose(draft)
            except TimeoutError:
                raise OutcomeUnknown(
                    f"the deletion was not committed within {_COMMIT_TIMEOUT_S:g} s: is a majority "
                    "of the partition's replicas up?"
                ) from None
            self._controller.retention.wake()
        return led.replica.log.start_offset

    # -- notes ---------------------------------------------------------------------------------

    async def fence(self, topic: str, partition: int, token: int) -> int:
        """Refuse appends that name an older fencing token; see :class:`BrokerPort`."""
        return await self._notes.fence(topic, partition, token)

    async def set_checkpoint(
        self, topic: str, partition: int, name: str, offset: int, rewind: bool = False
    ) -> int:
        """Note how far ``name`` has read; see :class:`BrokerPort`."""
        return await self._notes.set_checkpoint(topic, partition, name, offset, rewind)

    async def forget_checkpoint(self, topic: str, partition: int, name: str) -> None:
        """See :class:`BrokerPort`."""
        await self._notes.forget_checkpoint(topic, partition, name)

    async def notes(self, topic: str, partition: int) -> Notes:
        """What is noted, by what was committed anywhere before the call."""
        return await self._notes.notes(topic, partition)

    # -- metadata ------------------------------------------------------------------------------

    async def allocate_producer(self) -> tuple[int, int]:
        """A new producer id and its epoch; never given out before, by any node."""
        command = metadata_pb2.Command(allocate_producer=metadata_pb2.AllocateProducer())
        result = await self.propose_metadata(command)
        return result.producer_id, 0

    async def propose_metadata(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        """Raises as :meth:`Controller.propose`."""
        return await self._controller.propose(command)

    def alive_nodes(self) -> list[NodeId]:
        """Registered nodes that gossip sees alive, and this one: who may take a replica."""
        seen = self._controller.gossip.states()
        return [
            NodeId(node.id)
            for node in self._metadata.nodes()
            if seen.get(node.id) is MemberState.ALIVE or node.id == self.node_id
        ]

    def lacking_nodes(self) -> set[NodeId]:
        """See :class:`BrokerPort`."""
        return self._controller.gossip.lacking()

    async def led_groups(self, groups: Sequence[GroupId]) -> LedGroups:
        """See :class:`BrokerPort`."""
        return await self._controller.survey.ask(groups, self.alive_nodes())

    def partition_status(self, group: GroupId) -> PartitionStatus:
        """Exact where this node leads, what it last heard where it follows, a guess elsewhere."""
        replica = self._host.replicas.get(group)
        if replica is None:
            return PartitionStatus(self._preferred_leader(group), 0, 0, 0, exact=False)
        return PartitionStatus(
            replica.core.leader_id,
            replica.core.term,
            replica.log.start_offset,
            replica.high_watermark.value,
            exact=replica.serving,
        )

    def _preferred_leader(self, group: GroupId) -> NodeId | None:
        partition = self._metadata.group(group)
        return partition.replicas[0] if partition is not None else None

    def cluster_status(self) -> ClusterView:
        replica = self._controller.replica
        members = replica.core.members
        roles = {node: "learner" for node in members.learners}
        roles.update({node: "voter" for node in members.voters})
        return ClusterView(
            cluster_id=self._controller.cluster_id,
            leader=replica.core.leader_id,
            term=replica.core.term,
            commit_index=replica.core.commit_index,
            roles=roles,
            members=self._membership.members(),
        )

    async def replacements(self) -> Sequence[Replacement]:
        """See :meth:`Controller.replacements`."""
        return await self._controller.replacements()

    async def transfer_leadership(
        self, topic: str, partition: int, target: NodeId | None
    ) -> NodeId:
        """Hand the partition to ``target`` or to the first other replica; the new leader.

        Raises:
            NotLeader: ask the leader. InvalidArgument: the target has no replica.
            Unavailable: it did not take over within 5 s; the old leader goes on.
        """
        info = self.metadata.partition(topic, partition)
        replica = self._leading(info)
        voters = replica.core.members.voters
        order = [*(node for node in info.target if node in voters), *voters]
        others = [node for node in dict.fromkeys(order) if node != self.node_id]
        chosen = target or next(iter(self._able_first(replica, others)), None)
        if chosen is None or chosen not in voters:
            raise InvalidArgument(
                f"{self._name_of(chosen)} has no replica of {topic}/{partition}; its replicas are "
                f"on {names_of(self._metadata, voters)}"
            )
        if chosen == self.node_id:
            return self.node_id
        replica.transfer_leadership(chosen)
        deadline = asyncio.get_running_loop().time() + _TRANSFER_TIMEOUT_S
        while replica.core.leader_id != chosen:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"{self._name_of(chosen)} did not take over in time: is it up and caught up?"
                )
            await asyncio.sleep(0.01)
        return chosen

    def _name_of(self, node: NodeId | None) -> str:
        return "no other node" if node is None else names_of(self._metadata, [node])

    def _able_first(self, replica: Replica, nodes: list[NodeId]) -> list[NodeId]:
        """Those of the voters ``nodes`` first that are up, answer and may lead."""
        alive = set(self.alive_nodes())

        def unable(node: NodeId) -> tuple[bool, bool]:
            is_up = node in alive and replica.answers(node)
            return not is_up, not self._metadata.may_lead(node)

        return sorted(nodes, key=unable)

    # -- who leads -----------------------------------------------------------------------------

    def address_of(self, node: NodeId | None) -> str | None:
        """Where a node's gRPC endpoint is: gossip knows first, the metadata remembers."""
        if node is None:
            return None
        known = self._metadata.node(node)
        return self._controller.gossip.address_of(node) or (known.address if known else None)

    def _hosted(self, info: PartitionInfo) -> Replica:
        replica = self._host.replicas.get(info.group)
        if replica is None:
            raise NotLeader("this node has no replica of the partition", self._leader_address(info))
        if replica.awaited is not None:
            raise NotLeader(
                "this node's replica of the partition is catching up", self._leader_address(info)
            )
        return replica

    def _leading(self, info: PartitionInfo) -> Replica:
        replica = self._hosted(info)
        if not replica.serving:
            raise NotLeader(leader=self._leader_address(info))
        return replica

    def _led(self, topic: str, partition: int) -> LedPartition:
        info = self.metadata.partition(topic, partition)
        replica = self._leading(info)
        machine = self._controller.partitions[info.group]
        return LedPartition(info.group, replica, machine, lambda: self._leader_address(info))

    def _leader_address(self, info: PartitionInfo) -> str | None:
        replica = self._host.replicas.get(info.group)
        if replica is None:
            return self.address_of(next((r for r in info.replicas if r != self.node_id), None))
        leader = replica.core.leader_id
        return None if leader == self.node_id else self.address_of(leader)
