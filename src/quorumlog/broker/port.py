"""What the services ask of a node's broker, and the values that go between them.

``Broker`` is the real one; tests and the simulator may put another behind the same services.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.led_groups import LedGroups
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.notes import Notes
from quorumlog.broker.replacement import Replacement
from quorumlog.log.batch import Draft
from quorumlog.ports import Member
from quorumlog.types import Buffer, GroupId, NodeId


@dataclass(frozen=True, slots=True)
class Earliest:
    """The first record the log still has."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The high watermark: the next record to be committed."""


@dataclass(frozen=True, slots=True)
class At:
    offset: int


@dataclass(frozen=True, slots=True)
class Since:
    """The first record appended at or after this time (milliseconds since the Unix epoch)."""

    timestamp_ms: int


Start = Earliest | Latest | At | Since


@dataclass(frozen=True, slots=True)
class ProduceAck:
    """The batch is committed: its first record's offset and when the leader appended it."""

    base_offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """``data`` holds whole RECORDS batches one after the other, as on disk; empty at the end.

    The first batch may begin before the offset asked for. ``next_offset`` is where to go on,
    also past batches that hold no records.
    """

    data: Buffer
    next_offset: int
    log_start_offset: int
    high_watermark: int


@dataclass(frozen=True, slots=True)
class OffsetInfo:
    offset: int
    log_start_offset: int
    high_watermark: int


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition as one node knows it; ``exact`` when that node is its leader.

    A node that hosts no replica names the preferred leader as a hint and zeros.
    """

    leader: NodeId | None
    term: int
    log_start_offset: int
    high_watermark: int
    exact: bool


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The metadata group as this node knows it, and what gossip sees.

    ``roles`` maps node ids to ``voter`` or ``learner``; ``leader`` is None while none is known.
    """

    cluster_id: str
    leader: NodeId | None
    term: int
    commit_index: int
    roles: dict[NodeId, str]
    members: list[Member]


class BrokerPort(Protocol):
    """One node's broker. Every call belongs to the event loop and raises typed errors."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def metadata(self) -> MetadataState:
        """The metadata as far as this node has applied it: one object for the broker's life.

        Raises:
            Unavailable: the node has not caught up since it started: what it does not know yet
                must not be taken for unknown to the cluster.
        """
        ...

    def submit(
        self, topic: str, partition: int, draft: Draft, fencing_token: int = 0
    ) -> "asyncio.Future[ProduceAck]":
        """Append a batch; the future is done when it is committed and applied.

        The order of the calls is the order in the log. Raises at once where the batch cannot be
        appended (UnknownTopic, PartitionOutOfRange, NotLeader, Overloaded, SequenceError, …); the
        future fails with OutcomeUnknown when leadership is lost first. A duplicate is
        acknowledged with its first offset, perhaps by the same future: callers must not cancel it.
        With a ``fencing_token`` (1 to 2^63 - 1; 0: none) it is appended only where no newer one
        came before (StaleFencingToken), and from then on older ones are refused.
        """
        ...

    async def append_at(
        self, topic: str, partition: int, draft: Draft, expected_end: int, fencing_token: int = 0
    ) -> ProduceAck:
        """Append a batch only where the partition ends at ``expected_end``.

        What is appended and not committed yet counts as there: it is waited for. A batch that this
        producer sent before is acknowledged again, wherever the partition ends by now.

        Raises:
            WrongExpectedOffset: it ends elsewhere, by what was committed anywhere before.
            All that :meth:`submit` and its future raise.
        """
        ...

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        max_bytes: int,
        max_wait_s: float,
        allow_follower: bool = False,
    ) -> Fetch:
        """Committed batches from ``offset`` on: about ``max_bytes``, at least one.

        At the high watermark it waits up to ``max_wait_s`` for more (an event, not a poll) and then
        answers without data. ``allow_follower``: any replica answers with the prefix it
        knows to be committed; otherwise only the leader does.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader, OffsetOutOfRange.
        """
        ...

    async def find_offset(self, topic: str, partition: int, start: Start) -> OffsetInfo:
        """Where ``start`` is; ``At`` is checked against the log's range (OffsetOutOfRange)."""
        ...

    async def delete_before(self, topic: str, partition: int, offset: int) -> int:
        """Delete every record before ``offset``, on all replicas; return where the log begins then.

        Before its beginning that does nothing. Readers do not see the records any more when this
        returns; files are removed in the background.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader.
            OffsetOutOfRange: ``offset`` is beyond the high watermark.
            OutcomeUnknown: it may happen yet, and may be asked for again.
        """
        ...

    async def fence(self, topic: str, partition: int, token: int) -> int:
        """Refuse appends that name an older token; return the newest there is once that holds.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader, InvalidArgument.
            StaleFencingToken: a newer one came before.
            OutcomeUnknown: it may hold yet, and may be asked for again.
        """
        ...

    async def set_checkpoint(
        self, topic: str, partition: int, name: str, offset: int, rewind: bool = False
    ) -> int:
        """Note that ``name`` reads on at ``offset``; return what is noted then.

        A checkpoint goes back only with ``rewind``: an older request that arrives late changes
        nothing.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader.
            InvalidArgument: no name for a checkpoint, or too many of them.
            OffsetOutOfRange: ``offset`` is beyond the high watermark.
            OutcomeUnknown: as :meth:`fence`.
        """
        ...

    async def forget_checkpoint(self, topic: str, partition: int, name: str) -> None:
        """Forget a checkpoint, if there is one; raises as :meth:`set_checkpoint`."""
        ...

    async def notes(self, topic: str, partition: int) -> Notes:
        """Fencing token and checkpoints, by what was committed anywhere before the call.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotLeader, Overloaded.
        """
        ...

    async def allocate_producer(self) -> tuple[int, int]:
        """A producer id that no one had before, and its epoch."""
        ...

    async def propose_metadata(self, command: metadata_pb2.Command) -> metadata_pb2.Result:
        """Have the metadata group apply ``command``, through its leader wherever that is.

        Returns when it is committed and applied at the leader; this node's ``metadata`` may be
        behind. Raises NotLeader, Unavailable or OutcomeUnknown when there is no result.
        """
        ...

    def partition_status(self, group: GroupId) -> PartitionStatus: ...

    def cluster_status(self) -> ClusterView: ...

    async def replacements(self) -> Sequence[Replacement]:
        """What the metadata's leader makes of nodes that it does not hear, asked for at that
        leader; empty where it does not answer, or nobody is replaced."""
        ...

    async def transfer_leadership(
        self, topic: str, partition: int, target: NodeId | None
    ) -> NodeId:
        """Hand a partition's leadership over and return the new leader; None: the best follower."""
        ...

    def alive_nodes(self) -> list[NodeId]:
        """Registered nodes that gossip sees alive, sorted: who may take a replica."""
        ...

    def lacking_nodes(self) -> set[NodeId]:
        """Those that cannot take over a replica of a partition that there is, new ones only: they
        lost the list of what they have had."""
        ...

    async def led_groups(self, groups: Sequence[GroupId]) -> LedGroups:
        """``groups``, 0 too, as their leaders see them, asked for at all nodes that are up; waits a
        moment for a leader to be elected."""
        ...
