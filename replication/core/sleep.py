"""Groups that have nothing to say set no timers (docs/design/0003, decision 9).

A leader whose followers have everything, and know so, *sleeps*, and so do they. From then on the
node of the leader is heard instead of the leader, by the beats of
:mod:`quorumlog.replication.sleep`; whoever drives the core brings their news here. Term, vote and
log are as ever: what sleep touches is time alone, so a mistake here costs liveness, never safety.
Nor may a lease rest on it: a leader that sleeps has none.
"""

from collections.abc import Collection, Iterable

from quorumlog.replication.core.election import Elector
from quorumlog.replication.core.messages import AppendResponse, Message
from quorumlog.replication.core.quorum import Tally, tally
from quorumlog.replication.core.ready import Awoke
from quorumlog.replication.core.role import Role
from quorumlog.types import NodeId


class Sleeper(Elector):
    asleep: bool = False
    """No timer is set. Any input but a flush's end wakes it; ``Awoke`` says so."""
    _asleep_with: tuple[NodeId, ...] = ()
    """As a leader: whom the majority was made of when it fell asleep."""
    _awake_since = float("-inf")

    def sleep_leading(self, silent: Collection[NodeId], now: float) -> tuple[NodeId, ...] | None:
        """Fall asleep as the leader, if nothing is under way. The members that sleep with it.

        They have the whole log durably, answered lately and were sent what is committed. Those
        that are ``silent`` do not count, nor sleep, nor do those that did not answer for twice an
        election timeout though this leader was awake: their replicas are closed, or not open yet.
        Whoever of them hears no leader has to wake the group.

        Returns:
            None when it stays awake.
        """
        leadership, log, members = self._leadership, self._log, self.members
        last_index = log.last_index
        if (
            self.asleep
            or leadership is None
            or leadership.is_busy
            or members.outgoing
            or not self.commit_index == self._durable_index == last_index
        ):
            return None
        timeout_s = self._config.election_timeout_s
        gone_since = now - 2 * timeout_s - self.patience_s
        others: list[NodeId] = []
        for peer in members.everybody:
            progress = leadership.progress_of(peer)
            if progress is None or peer in silent:
                continue
            if max(progress.heard_at, self._awake_since) < gone_since:
                continue
            if (
                progress.match_index != last_index
                or progress.sent_commit_index != self.commit_index
                or progress.heard_at <= now - timeout_s
            ):
                return None
            others.append(peer)
        if not self._is_majority(others):
            return None
        self.asleep = True
        self._asleep_with = tuple(others)
        return self._asleep_with

    def sleeps_with(self, peer: NodeId) -> bool:
        """Whether this is a sleeping leader and ``peer`` one of those that sleep with it."""
        return self.asleep and peer in self._asleep_with

    def sleep_on_without(self, peer: NodeId) -> bool:
        """As a sleeping leader: ``peer`` is silent. Whether those that are left are a majority."""
        self._asleep_with = tuple(each for each in self._asleep_with if each != peer)
        return self._is_majority(self._asleep_with)

    def _is_majority(self, others: Iterable[NodeId]) -> bool:
        return tally(self.members, dict.fromkeys((self._node_id, *others), True)) is Tally.WON

    def sleep_following(self, leader: NodeId, term: int, last_index: int) -> bool:
        """Fall asleep as a follower of ``leader``, whose log in ``term`` ends at ``last_index``.

        Returns:
            Whether it sleeps: not unless it has that very log durably, all of it committed.
        """
        log = self._log
        agrees = (
            self.role is Role.FOLLOWER
            and not self.recovering
            and self.leader_id == leader
            and self.term == log.last_term == term
            and log.last_index == last_index == self._durable_index == self.commit_index
        )
        if agrees:
            self.asleep = True
        return agrees

    def is_woken_by(self, message: Message) -> bool:
        """Whether ``message`` ends a sleep: all do but an answer that was late in saying yes."""
        return self.asleep and not (
            isinstance(message, AppendResponse) and message.success and message.term == self.term
        )

    def wake(self, now: float, heard_at: float | None = None) -> None:
        """Set the timers again; nothing happens when it is awake.

        ``heard_at`` is when a follower's leader was last known to live, by default now: the timer
        is drawn anew and runs from there, as if the leader itself had been heard.
        """
        if not self.asleep:
            return
        self.asleep = False
        self._outbox.events.append(Awoke())
        if self._leadership is None:
            since = now if heard_at is None else min(heard_at, now)
            timeout_s = self._config.election_timeout_s
            self._votes_from = max(self._votes_from, since + timeout_s)
            # What it promised when it heard the leader itself holds for its own vote, too.
            self._restart_election_timer(self._votes_from - timeout_s)
            return
        self._awake_since = now
        for peer in self._asleep_with:
            progress = self._leadership.progress_of(peer)
            if progress is not None:
                progress.heard_at = now
        self._leadership.notify_all()
