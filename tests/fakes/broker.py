"""One node's broker in memory, without replication: the real metadata state and producer table."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.led_groups import LedGroup, LedGroups
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_command import raise_for
from quorumlog.broker.note_command import SetCheckpoint
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
from quorumlog.broker.producers import Duplicate, InFlight, PendingProducers, ProducerTable
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import (
    NotLeader,
    OffsetOutOfRange,
    StaleFencingToken,
    Unavailable,
    WrongExpectedOffset,
)
from quorumlog.log.batch import Batch, Draft, join_batches
from quorumlog.ports import Member, MemberState
from quorumlog.types import GroupId, NodeId, Offset

TERM = 3


@dataclass
class FakePartition:
    leader: NodeId
    committed: list[Batch] = field(default_factory=list)
    pending: deque[tuple[Batch, "asyncio.Future[ProduceAck]"]] = field(default_factory=deque)
    end_offset: int = 0
    high_watermark: int = 0
    log_start_offset: int = 0
    last_index: int = 0
    notes: Notes = field(default_factory=Notes)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.producers = ProducerTable()
        self.overlay = PendingProducers(self.producers)


class FakeBroker:
    """Node ``a`` of a cluster of ``nodes``. Commits at once unless ``held``; then ``commit`` does.

    While ``metadata_delayed``, this node hears of no metadata command; ``catch_up`` ends that.
    While ``starting``, it has not caught up with the cluster's metadata.
    So many of the next ``partition_status`` are those of a partition without leader:
    ``elections``.
    ``states`` and ``moved``: what gossip sees of a node's state and address; ``strangers``: whom
    else it sees.
    ``fetches`` keeps (max_bytes, max_wait_s) of each fetch.
    """

    def __init__(self, *nodes: str) -> None:
        self.node_id = NodeId("a")
        self.starting = False
        self.lacking: set[NodeId] = set()
        """What :meth:`lacking_nodes` gives."""
        self.silent: set[NodeId] = set()
        """Nodes that are up, and none of whose replicas answers."""
        self.led: dict[GroupId, LedGroup | None] = {}
        self.elections = 0
        self._metadata = MetadataState()
        self.leader_metadata = MetadataState()
        self.held = False
        self.fetches: list[tuple[int, float]] = []
        self.submitted: list[tuple[str, int, Draft]] = []
        self.refuse: list[Exception] = []
        self.states: dict[str, MemberState] = {}
        self.moved: dict[str, str] = {}
        self.strangers: list[Member] = []
        self.not_heard: list[Replacement] = []
        self.metadata_delayed = False
        self._commands: deque[bytes] = deque()
        self._partitions: dict[GroupId, FakePartition] = {}
        for node in nodes or ("a", "b", "c"):
            message = metadata_pb2.Node(
                id=node, name=f"node-{node}", address=f"{node}:7400", version="1.0"
            )
            self._decide(metadata_pb2.Command(register_node={"node": message}))

    # ---------------------------------------------------------------------------------- metadata

    @property
    def metadata(self) -> MetadataState:
        if self.starting:
            raise Unavailable("this node is still learning the cluster's metadata")
        return self._metadata

    def _decide(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        encoded = command.SerializeToString(deterministic=True)
        index = self.leader_metadata.applied_index + 1
        result = self.leader_metadata.apply(encoded, index)
        self._commands.append(encoded)
        if not self.metadata_delayed:
            self.catch_up()
        return result

    def catch_up(self) -> None:
        while self._commands:
            self.metadata.apply(self._commands.popleft(), self.metadata.applied_index + 1)

    async def propose_metadata(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        await asyncio.sleep(0)
        return raise_for(self._decide(command))

    async def allocate_producer(self) -> tuple[int, int]:
        command = metadata_pb2.Command(allocate_producer=metadata_pb2.AllocateProducer())
        return (await self.propose_metadata(command)).producer_id, 0

    def create(self, topic: str, partitions: int = 1, replicas: int = 1) -> None:
        message = metadata_pb2.CreateTopic(
            name=topic, partitions=partitions, replicas=replicas, candidates=self.alive_nodes()
        )
        raise_for(self._decide(metadata_pb2.Command(create_topic=message)))

    def lacking_nodes(self) -> set[NodeId]:
        return self.lacking

    async def led_groups(self, groups: Sequence[GroupId]) -> LedGroups:
        """A group's replicas answer where their nodes are up and not :attr:`silent`; its leader is
        asked for at all nodes, unless ``led`` says what comes of that."""
        found: dict[GroupId, LedGroup | None] = {}
        for group in groups:
            info = self.metadata.group(group)
            voters = (
                info.replicas if info is not None else tuple(n.id for n in self.metadata.nodes())
            )
            alive = self.alive_nodes()
            silent = {node for node in voters if node not in alive or node in self.silent}
            has_leader = len(voters) - len(silent) > len(voters) // 2
            found[group] = LedGroup(TERM, voters, (), frozenset(silent)) if has_leader else None
        return {**found, **{group: self.led[group] for group in groups if group in self.led}}

    async def replacements(self) -> list[Replacement]:
        return list(self.not_heard)

    def alive_nodes(self) -> list[NodeId]:
        return [
            node.id
            for node in self.metadata.nodes()
            if self.states.get(node.id, MemberState.ALIVE) is MemberState.ALIVE
        ]

    # ----------------------------------------------------------------------------------- records

    def log(self, topic: str, partition: int = 0) -> FakePartition:
        info = self.metadata.partition(topic, partition)
        return self._partitions.setdefault(info.group, FakePartition(self.node_id))

    def lead_elsewhere(self, topic: str, leader: str) -> None:
        self.log(topic).leader = NodeId(leader)

    def submit(
        self, topic: str, partition: int, draft: Draft, fencing_token: int = 0
    ) -> "asyncio.Future[ProduceAck]":
        log = self._led(topic, partition)
        if self.refuse:
            raise self.refuse.pop(0)
        self.submitted.append((topic, partition, draft))
        found = log.overlay.check(
            draft.producer_id, draft.producer_epoch, draft.sequence, draft.record_count
        )
        future: asyncio.Future[ProduceAck] = asyncio.get_running_loop().create_future()
        if isinstance(found, Duplicate):
            future.set_result(ProduceAck(found.base_offset, found.timestamp_ms))
            return future
        if isinstance(found, InFlight):
            index = found.index
            return next(each for batch, each in log.pending if batch.header.index == index)
        if fencing_token:
            self._fence(log, fencing_token)
        log.last_index += 1
        batch = draft.stamp(log.last_index, TERM, log.end_offset, 1000 + log.last_index)
        log.end_offset = batch.header.next_offset
        log.overlay.appended(batch.header)
        log.pending.append((batch, future))
        if not self.held:
            self.commit(topic, partition)
        return future

    async def append_at(
        self, topic: str, partition: int, draft: Draft, expected_end: int, fencing_token: int = 0
    ) -> ProduceAck:
        log = self._led(topic, partition)
        if log.end_offset != expected_end:
            raise WrongExpectedOffset(expected_end, log.end_offset)
        return await asyncio.shield(self.submit(topic, partition, draft, fencing_token))

    def commit(self, topic: str, partition: int = 0, batches: int = 1 << 30) -> None:
        """Commit this many of the batches that are pending, oldest first."""
        log = self.log(topic, partition)
        for _ in range(min(batches, len(log.pending))):
            batch, future = log.pending.popleft()
            header = batch.header
            log.producers.applied(header)
            log.overlay.applied(header)
            log.committed.append(batch)
            log.high_watermark = header.next_offset
            if not future.done():
                future.set_result(ProduceAck(header.base_offset, header.timestamp_ms))
        changed, log.changed = log.changed, asyncio.Event()
        changed.set()

    async def delete_before(self, topic: str, partition: int, offset: int) -> int:
        log = self._led(topic, partition)
        if offset > log.high_watermark:
            raise OffsetOutOfRange(offset, log.log_start_offset, log.high_watermark)
        self.trim(topic, max(offset, log.log_start_offset), partition)
        return log.log_start_offset

    def _fence(self, log: FakePartition, token: int) -> None:
        if token < log.notes.fencing_token:
            raise StaleFencingToken(token, log.notes.fencing_token)
        log.notes = log.notes.fenced(token)

    async def fence(self, topic: str, partition: int, token: int) -> int:
        log = self._led(topic, partition)
        self._fence(log, token)
        return log.notes.fencing_token

    async def set_checkpoint(
        self, topic: str, partition: int, name: str, offset: int, rewind: bool = False
    ) -> int:
        log = self._led(topic, partition)
        log.notes = SetCheckpoint(name, Offset(offset), rewind).applied_to(log.notes)
        return log.notes.checkpoints[name]

    async def forget_checkpoint(self, topic: str, partition: int, name: str) -> None:
        log = self._led(topic, partition)
        log.notes = log.notes.without_checkpoint(name)

    async def notes(self, topic: str, partition: int) -> Notes:
        return self._led(topic, partition).notes

    def trim(self, topic: str, start: int, partition: int = 0) -> None:
        log = self.log(topic, partition)
        log.log_start_offset = start
        log.committed = [batch for batch in log.committed if batch.header.next_offset > start]

    def _led(self, topic: str, partition: int) -> FakePartition:
        log = self.log(topic, partition)
        if log.leader != self.node_id:
            raise NotLeader(leader=f"{log.leader}:7400")
        return log

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        max_bytes: int,
        max_wait_s: float,
        allow_follower: bool = False,
    ) -> Fetch:
        self.fetches.append((max_bytes, max_wait_s))
        log = self.log(topic, partition) if allow_follower else self._led(topic, partition)
        if offset == log.high_watermark and max_wait_s > 0:
            try:
                async with asyncio.timeout(max_wait_s):
                    await log.changed.wait()
            except TimeoutError:
                pass
        if not log.log_start_offset <= offset <= log.high_watermark:
            raise OffsetOutOfRange(offset, log.log_start_offset, log.high_watermark)
        chosen: list[Batch] = []
        for batch in log.committed:
            if batch.header.next_offset > offset and (
                not chosen or sum(each.size_bytes for each in chosen) < max_bytes
            ):
                chosen.append(batch)
        next_offset = chosen[-1].header.next_offset if chosen else offset
        data = memoryview(join_batches(chosen))
        return Fetch(data, next_offset, log.log_start_offset, log.high_watermark)

    async def find_offset(self, topic: str, partition: int, start: Start) -> OffsetInfo:
        log = self._led(topic, partition)
        first, end = log.log_start_offset, log.high_watermark
        match start:
            case Earliest():
                offset = first
            case Latest():
                offset = end
            case At(offset):
                if not first <= offset <= end:
                    raise OffsetOutOfRange(offset, first, end)
            case _:
                later = (
                    int(batch.header.base_offset)
                    for batch in log.committed
                    if batch.header.timestamp_ms >= start.timestamp_ms
                )
                offset = next(later, end)
        return OffsetInfo(offset, first, end)

    # ----------------------------------------------------------------------------------- cluster

    def partition_status(self, group: GroupId) -> PartitionStatus:
        if self.elections:
            self.elections -= 1
            return PartitionStatus(None, 0, 0, 0, exact=False)
        log = self._partitions.get(group)
        if log is None:
            info = self.metadata.group(group)
            if info is None:
                return PartitionStatus(None, 0, 0, 0, exact=False)
            leader = info.replicas[0]
            term = TERM if self.node_id in info.replicas else 0
            return PartitionStatus(leader, term, 0, 0, exact=leader == self.node_id)
        exact = log.leader == self.node_id
        return PartitionStatus(log.leader, TERM, log.log_start_offset, log.high_watermark, exact)

    def cluster_status(self) -> ClusterView:
        members = [
            Member(
                node.name,
                node.id,
                7946,
                self.states.get(node.id, MemberState.ALIVE),
                {
                    "id": node.id,
                    "rpc": self.moved.get(node.id, node.address),
                    "cluster": "cluster-1",
                },
            )
            for node in self.leader_metadata.nodes()
        ]
        members.append(Member("stranger", "x", 7946, MemberState.ALIVE, {"id": "x", "cluster": ""}))
        members += self.strangers
        roles = {node.id: "voter" for node in self.leader_metadata.nodes()}
        return ClusterView("cluster-1", NodeId("b"), TERM, 17, roles, members)

    async def transfer_leadership(
        self, topic: str, partition: int, target: NodeId | None
    ) -> NodeId:
        log = self._led(topic, partition)
        replicas = self.metadata.partition(topic, partition).replicas
        log.leader = target or next(node for node in replicas if node != self.node_id)
        return log.leader
