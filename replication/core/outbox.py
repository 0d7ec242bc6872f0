"""Collects what the core says until the driver takes it."""

from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.messages import Message
from quorumlog.replication.core.ready import Event, Ready
from quorumlog.types import Index, NodeId, Term


class Outbox:
    def __init__(self, commit_index: Index) -> None:
        self.messages: list[tuple[NodeId, Message]] = []
        """Leave at once: they rely on nothing that is not durable."""
        self.durable_messages: list[tuple[NodeId, Message]] = []
        self.events: list[Event] = []
        self.hard_state_changed = False
        self._taken_commit_index = commit_index

    def has_ready(self, commit_index: Index) -> bool:
        return bool(
            self.messages
            or self.durable_messages
            or self.events
            or self.hard_state_changed
            or commit_index != self._taken_commit_index
        )

    def take(self, term: Term, vote: NodeId | None, commit_index: Index) -> Ready:
        ready = Ready(
            HardState(term, vote) if self.hard_state_changed else None,
            tuple(self.messages),
            tuple(self.durable_messages),
            commit_index,
            tuple(self.events),
        )
        self.messages.clear()
        self.durable_messages.clear()
        self.events.clear()
        self.hard_state_changed = False
        self._taken_commit_index = commit_index
        return ready
