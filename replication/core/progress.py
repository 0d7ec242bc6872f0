"""What the leader knows of one follower, and how much it may send it (Raft §5.3, §10.2.1 of the
dissertation).

While *streaming* the leader assumes that what it sends arrives: ``next_index`` moves on as soon as
a request leaves, until the window is full. A refusal shows that something is missing; then the
follower is *probed* with empty requests, one at a time, until the place is found where the logs
agree. Empty requests carry ``next_index - 1`` too, so a heartbeat finds what was lost in silence.
"""

from collections import deque

from quorumlog.types import Index


class Progress:
    __slots__ = (
        "_inflight",
        "confirmed_at",
        "confirmed_round",
        "heard_at",
        "inflight_bytes",
        "match_index",
        "needs_state",
        "next_index",
        "notice_due",
        "probing",
        "sent_commit_index",
    )

    def __init__(self, next_index: Index, now: float, *, probing: bool) -> None:
        self.match_index = Index(0)
        """Up to here the follower's log is the leader's, durably. Only :meth:`lost` lowers it."""
        self.next_index = next_index
        """The first batch to send next; above ``match_index``."""
        self.probing = probing
        self.heard_at = now
        """When the follower last answered in this term, seconds."""
        self.confirmed_round = 0
        """The newest round that the follower answered."""
        self.confirmed_at = float("-inf")
        """When that round was opened, seconds."""
        self.notice_due = probing
        """It gets a request now, also when there is nothing to send."""
        self.needs_state = False
        """It lacks what stood before the start of the leader's log: batches do not help it."""
        self.sent_commit_index = 0
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()

    @property
    def inflight_messages(self) -> int:
        return len(self._inflight)

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Batches through ``last_index`` left."""
        self._inflight.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes
        self.next_index = Index(last_index + 1)

    def accepted(self, match_index: Index) -> None:
        """The follower has all through ``match_index``."""
        self.needs_state = False
        if self.probing and match_index >= self.next_index - 1:
            self.probing = False
        if match_index <= self.match_index:
            return
        self.match_index = match_index
        if match_index >= self.next_index:
            self.next_index = Index(match_index + 1)
        inflight = self._inflight
        while inflight and inflight[0][0] <= match_index:
            self.inflight_bytes -= inflight.popleft()[1]

    def is_refusal_stale(self, rejected_index: int) -> bool:
        """Whether a refusal answers a request that what is known by now has overtaken.

        Nobody refuses what follows 0. That answers a request of an earlier term, whose leader leads
        again: it says nothing of the log.
        """
        if rejected_index == 0:
            return True
        if self.probing:
            return rejected_index != self.next_index - 1
        return not self.match_index <= rejected_index < self.next_index

    def lost(self) -> None:
        """The follower does not have any more what it acknowledged: it has to do so again."""
        self.match_index = Index(0)

    def probe(self, next_index: int) -> None:
        """Ask at ``next_index - 1``; what is in flight is taken as lost.

        Asked there before, in vain (the log here starts later): the next heartbeat asks again.
        """
        if not self.probing or next_index != self.next_index:
            self.notice_due = True
        self.probing = True
        self.next_index = Index(next_index)
        self._inflight.clear()
        self.inflight_bytes = 0
