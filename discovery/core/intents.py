"""When members joined, and which are about to leave, by Serf's Lamport times.

A member that fails after it said that it would leave has left. An intent counts when it is newer
than the last one about the same name; of a name not known yet it is kept for when it is.
"""

from collections import OrderedDict
from dataclasses import dataclass

from quorumlog.discovery.core.members import MemberTable
from quorumlog.discovery.wire.serf_messages import Intent


@dataclass(slots=True)
class _Known:
    time: int
    leaves: bool


class Intents:
    """At most ``max_names``, those of unknown members forgotten first, oldest first."""

    def __init__(self, table: MemberTable, max_names: int) -> None:
        self._table = table
        self._max_names = max_names
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def take(self, intent: Intent) -> bool:
        """Whether ``intent`` is newer than what was known."""
        known = self._known.get(intent.name)
        if known is not None and intent.time <= known.time:
            return False
        if known is None and intent.time == 0 and self._table.get(intent.name) is not None:
            return False
        self._known[intent.name] = _Known(intent.time, intent.leaves)
        if len(self._known) > self._max_names:
            self._forget_one(intent.name)
        return True

    def is_leaving(self, name: str) -> bool:
        known = self._known.get(name)
        return known is not None and known.leaves

    def returned(self, name: str) -> None:
        """``name`` had failed or left and is back: what it meant to do is done with."""
        known = self._known.get(name)
        if known is not None:
            known.leaves = False

    def time_of(self, name: str) -> int:
        """Of the last intent about ``name``, 0 without one."""
        known = self._known.get(name)
        return 0 if known is None else known.time

    def _forget_one(self, newest: str) -> None:
        """Who is passed over, as a member, stands last from then on: so among many members it takes
        a few steps on average, and a stranger who says many names does not hold this node up."""
        for _ in range(len(self._known)):
            oldest = next(iter(self._known))
            if oldest != newest and self._table.get(oldest) is None:
                del self._known[oldest]
                return
            self._known.move_to_end(oldest)
        del self._known[newest]
