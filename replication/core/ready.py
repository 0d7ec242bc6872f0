"""What comes out of the core: values for the driver to act upon, in order."""

from dataclasses import dataclass

from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import Message
from quorumlog.types import Index, NodeId, Term


@dataclass(frozen=True, slots=True)
class BecameLeader:
    """This node leads in ``term``; the no-op that opens the term is in its log."""

    term: Term


@dataclass(frozen=True, slots=True)
class SteppedDown:
    """This node led in ``term`` and does not any more; what it appended may or may not survive."""

    term: Term


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """``leader`` leads in ``term`` as far as this node knows; None: nobody it has heard of."""

    leader: NodeId | None
    term: Term


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """The configuration that holds from now on; not committed yet, it may change back."""

    members: Members


@dataclass(frozen=True, slots=True)
class ReadAllowed:
    """Read ``number`` may be answered once ``index`` is applied.

    Those that are not allowed when this node steps down never will be.
    """

    number: int
    index: Index


@dataclass(frozen=True, slots=True)
class Awoke:
    """This node slept in its group and has its timers set again."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """All that this node ever acknowledged in its group is in its log again."""


Event = (
    BecameLeader | SteppedDown | LeaderChanged | MembersChanged | ReadAllowed | Awoke | Recovered
)


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is new since the last one.

    The driver sends ``messages`` at once. It saves ``hard_state`` (fsync), then flushes the log,
    and only then sends ``durable_messages`` and calls ``persisted()``. Several may be taken before
    a flush ends; the durable messages of all leave in order.
    """

    hard_state: HardState | None
    messages: tuple[tuple[NodeId, Message], ...]
    durable_messages: tuple[tuple[NodeId, Message], ...]
    commit_index: Index
    events: tuple[Event, ...]
