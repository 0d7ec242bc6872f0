"""Who in this program is told of what happens in gossip: handlers, and readers of events."""

import weakref
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from quorumlog.discovery.core.output import EventReceived, NameConflicted
from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.member_events import MemberEvents
from quorumlog.errors import DuplicateNode, QuorumlogError
from quorumlog.ports import Member

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_LOG_INTERVAL_S: Final = 10.0


class Audience:
    """Handlers are called in the event loop, in the order in which they came. One that fails is its
    owner's bug: it is logged and stops neither the others nor the protocol."""

    def __init__(self) -> None:
        self.on_change: list[Callable[[Member], None]] = []
        self.on_conflict: list[Callable[[DuplicateNode], None]] = []
        self.on_event: list[Callable[[EventReceived], None]] = []
        self.on_failure: list[Callable[[QuorumlogError], None]] = []
        # A reader that is dropped in the middle takes its events with it.
        self.readers: weakref.WeakSet[MemberEvents] = weakref.WeakSet()
        self._conflict_limit = RateLimit(_LOG_INTERVAL_S)

    def member_changed(self, member: Member) -> None:
        for reader in self.readers:
            reader.note(member)
        _call(self.on_change, member)

    def name_conflicted(self, conflict: NameConflicted, now: float) -> None:
        """Logged every ten seconds at most; handlers hear of this node's own name only."""
        member, (host, port) = conflict.member, conflict.claimant
        error = DuplicateNode(
            f"the node at {host}:{port} uses the name {member.name!r} of the one at "
            f"{member.address}:{member.port}: give one of them another name, or stop it"
        )
        if self._conflict_limit.allows(now):
            _log.warning(
                "name_conflicted",
                error=str(error),
                not_logged=self._conflict_limit.take_suppressed(),
            )
        if conflict.ours:
            _call(self.on_conflict, error)

    def event_received(self, event: EventReceived) -> None:
        _call(self.on_event, event)

    def ended(self, failure: QuorumlogError | None) -> None:
        """Nothing happens any more; ``failure`` says why, where nobody wanted it."""
        for reader in self.readers:
            reader.end(failure)
        if failure is not None:
            _call(self.on_failure, failure)


def _call(handlers: Sequence[Callable[[T], None]], value: T) -> None:
    for handler in handlers:
        try:
            handler(value)
        except Exception:
            _log.exception("gossip_handler_failed")
