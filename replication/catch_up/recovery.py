"""How a replica that has forgotten what it acknowledged comes to vote again.

The replica R lost its log and kept its term and vote. Raft relies on three things of a voter, and
the second is gone: that it votes once in a term (kept on disk), that its vote refuses who lacks a
committed batch it acknowledged, and that what it acknowledged stays (the others count on it).

So R grants no vote and stands for nothing until it again holds every committed batch that it ever
acknowledged. It asks a leader L of term T, not older than its own term, where the log of L ends,
and gets index E. Then:

- *L holds all those batches.* R acknowledged them to leaders of terms up to its own, so of terms up
  to T. Those of earlier terms are in the log of L by Leader Completeness (Raft §5.4.3): each of the
  voters of L voted with a whole log, since R, as long as it is recovering, votes for nobody. Those
  of term T were made by L itself.
- *They end at E or before*, also those that L commits later by counting what R acknowledged to it
  before it forgot: L had appended them by then, and a leader never takes a batch back. For this the
  answer has to be younger than the loss, so the question carries a number that no answer from
  before can have.
- *R holds them when its log is durable through E and its batch E is of term T*: then the logs of R
  and L agree up to there (Log Matching).

E is good under L only. Another leader may have cut what stood at E, so R asks again then; and after
a restart, since only the note that it is recovering is kept. Once R holds all of it in one moment
it is a voter as any other.

A majority of the voters that has forgotten at once never elects anybody, unless a leader lives:
what only they acknowledged may be lost, and nothing here guesses that it is not.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from quorumlog.log.log import Log
from quorumlog.replication.catch_up.messages import EndAnswer, EndQuestion
from quorumlog.replication.core.core import RaftCore
from quorumlog.types import GroupId, Index, NodeId, Term

RETRY_S: Final = 0.5
"""A question without an answer is asked again after this time."""

PATIENCE_S: Final = 30.0
"""Without a leader for so long, the log of the program says what to do."""

_log = structlog.get_logger()


class Recovering(Protocol):
    """The replica, as this needs it."""

    group: GroupId
    core: RaftCore
    log: Log


class Recovery:
    """Asks where the leader's log ends, and says when this one has reached it. In the event loop.

    A plain value machine: it is looked after whenever the core was, and with every heartbeat.
    """

    def __init__(
        self,
        node_id: NodeId,
        replica: Recovering,
        now_s: float,
        draw_nonce: Callable[[], int],
        ask: Callable[[NodeId, EndQuestion], None],
        whole: Callable[[], None],
    ) -> None:
        """``whole`` is called once, when all is there again and durable."""
        self._node_id = node_id
        self._replica = replica
        self._draw_nonce = draw_nonce
        self._ask = ask
        self._whole = whole
        self._is_whole = False
        self._question: EndQuestion | None = None
        self._asked_at_s = 0.0
        self._end: tuple[Term, Index] | None = None
        self._led_at_s = now_s
        self._has_complained = False

    def look(self, now_s: float) -> None:
        core = self._replica.core
        if not core.recovering or self._is_whole:
            return
        if core.leader_id is None:
            # It never stands, so a leader that sleeps would not hear of it.
            others = [peer for peer in core.members.everybody if peer != self._node_id]
            self._ask_if_due(others, now_s)
            self._complain(now_s)
            return
        self._led_at_s = now_s
        if self._end is not None and self._end[0] == core.term:
            self._compare(self._end[1])
        else:
            self._ask_if_due((core.leader_id,), now_s)

    def _ask_if_due(self, peers: Sequence[NodeId], now_s: float) -> None:
        asked, term = self._question, self._replica.core.term
        if asked is not None and asked.term == term and now_s - self._asked_at_s < RETRY_S:
            return
        self._question = EndQuestion(term, self._draw_nonce())
        self._asked_at_s = now_s
        for peer in peers:
            self._ask(peer, self._question)

    def answered(self, answer: EndAnswer) -> None:
        if self._question == EndQuestion(answer.term, answer.nonce):
            self._end = (answer.term, answer.last_index)
            self._question = None

    def _compare(self, end: Index) -> None:
        core, log = self._replica.core, self._replica.log
        if core.durable_index < end:
            return
        # An installed state may have the log begin behind it: then all up to there is committed.
        if end >= log.start_index and log.term_at(end) != core.term:
            return
        self._is_whole = True
        _log.info("replica_recovered", group=self._replica.group, index=end, term=core.term)
        self._whole()

    def _complain(self, now_s: float) -> None:
        if now_s - self._led_at_s < PATIENCE_S or self._has_complained:
            return
        self._has_complained = True
        _log.error(
            "recovering_without_leader",
            group=self._replica.group,
            waited_s=PATIENCE_S,
            way_out="this replica lost its log to damage and votes only after a leader has given "
            "it all of it again. Start the other replicas. If a majority of them is damaged too, "
            "stop the nodes, put what was set aside (groups/<group>.damaged-<n>) back in its place "
            "on one of them, and run `quorumlog log repair` there: what it cannot mend is lost",
        )
