"""The promises of the system, checked after every turn of the loop on every replica that ran.

Cheap because incremental: a replica whose term, role, commit index and log end are as before
(:mod:`sim.glance`) is left alone, and its state is compared only when its state machine was told
something. In the end all states are, once more. History and rules: :mod:`sim.history`.
"""

from dataclasses import dataclass, field

from quorumlog.errors import Corrupt
from quorumlog.log.batch import Batch
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import load_newest
from quorumlog.replication.catch_up.messages import FIRST_TYPE
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.messages import AppendResponse, VoteRequest, VoteResponse
from quorumlog.replication.core.role import Role
from quorumlog.replication.replica import Replica
from quorumlog.replication.sleep.beat import BEAT_GROUP
from quorumlog.replication.wire import decode
from quorumlog.types import METADATA_GROUP, GroupId, NodeId
from sim.bounds import check_bounds
from sim.endings import Endings
from sim.glance import Glance
from sim.history import GroupHistory, Violation
from sim.moves import MoveWatch
from sim.node import DATA_DIRECTORY, SimNode
from sim.process import Process
from sim.promises import check_asleep, check_deposed, check_vote_kept, check_whole
from sim.states import States

_SLICE_BYTES = 1 << 20
_APPEND_REQUEST_TYPE = 3
_NO_LIMIT = 1 << 64


@dataclass(slots=True)
class _Seen:
    """A replica as it was last looked at; outlives its process."""

    replica: Replica | None = None
    led_in: int | None = None
    """The term that it led in, when it did."""
    compared_at: tuple[object, ...] = ()
    """What a state machine was told when its state was last compared: see ``_told``."""
    batches: list[Batch] = field(default_factory=list)
    durable_index: int = 0
    commit_index: int = 0
    largest_batch_bytes: int = 0
    forgotten: list[Batch] = field(default_factory=list)
    """What was durable before its log was set aside; while it is recovering."""
    promised_term: int = 0
    """The newest term it told anybody it is in."""


class Checker(Endings):
    """Watches all nodes. A violation is raised at the end of the turn that it was found in."""

    def __init__(self, nodes: dict[NodeId, SimNode]) -> None:
        super().__init__(nodes)
        self.checked = 0
        self._moves = MoveWatch(nodes, self.histories)
        self._seen: dict[tuple[NodeId, int], _Seen] = {}
        self._open: dict[Process, dict[GroupId, Glance]] = {}
        """Replicas of a process that were open in it, and are not known to be closed."""
        self._states = States()
        self._violation: Violation | None = None

    def history(self, group: int) -> GroupHistory:
        found = self.histories.get(group)
        if found is None:
            found = self.histories[group] = GroupHistory(group)
        return found

    def _seen_of(self, node: NodeId, group: int) -> _Seen:
        seen = self._seen.get((node, group))
        if seen is None:
            seen = self._seen[node, group] = _Seen()
        return seen

    # -- after every turn ----------------------------------------------------------------------

    def after_turn(self, ran: dict[Process, None]) -> None:
        if self._violation is not None:
            raise self._violation
        for process in ran:
            node = self._nodes.get(NodeId(process.name))
            if node is None or node.process is not process or node.host is None:
                continue
            replicas = node.host.replicas
            known = self._open.get(process)
            if known is None:
                known = self._open[process] = {}
            for group, replica in replicas.items():
                glance = known.get(group)
                if glance is None or glance.replica is not replica:
                    glance = known[group] = Glance(replica)
                if glance.numbers() != glance.seen:
                    self._look_at(node.node_id, group, glance)
            if len(known) > len(replicas):
                for group in known.keys() - replicas.keys():
                    # One that is being closed still flushes and answers.
                    if known[group].numbers() != known[group].seen:
                        self._look_at(node.node_id, group, known[group])

    def _look_at(self, node: NodeId, group: GroupId, glance: Glance) -> None:
        try:
            self._check(node, group, glance)
        except Corrupt as error:
            # Found by who looks here, before anybody on the node had to read there: said at once,
            # or what it acknowledges from now on would not be known.
            machine = self._nodes[node]
            if not machine.was_rotten or machine.host is None:
                raise
            machine.process.context().run(machine.host.report_damage, group, error)

    def _check(self, node: NodeId, group: GroupId, glance: Glance) -> None:
        replica = glance.replica
        core, log = replica.core, replica.log
        seen = self._seen_of(node, group)
        if seen.replica is not replica and not self._nodes[node].up:
            # It was opened and died in this very turn: its files can no longer be read.
            return
        self.checked += 1
        glance.seen = glance.numbers()
        was_leader = seen.led_in == core.term and seen.replica is replica
        seen.led_in = core.term if core.role is Role.LEADER else None
        if replica.failure is not None or log.is_fenced:
            # The log knows before its replica does: the flush is still on its way back. One that
            # was cut short by the death of its process in this very turn knows nothing more.
            is_rot = self._nodes[node].was_rotten and isinstance(replica.failure, Corrupt)
            if self._nodes[node].up and not self._nodes[node].may_fail and not is_rot:
                raise Violation(f"{node} group {group} is fenced: {replica.failure!r}")
            return
        history = self.history(group)
        if seen.replica is not replica:
            self._reopened(node, history, replica, seen)
        if not core.recovering:
            if seen.forgotten:
                check_whole(node, history, seen.forgotten, log, "is a voter again")
            seen.forgotten = []
        elif not self._nodes[node].was_rotten and not self._moves.may_recover(node, group):
            raise Violation(f"{node} group {group} has started over, and nothing was damaged")
        self._follow_log(node, history, seen, log)
        seen.durable_index = log.durable_index
        if core.role is Role.LEADER and not was_leader:
            history.elected(node, core.term)
            history.check_complete(node, core.term, seen.batches)
        if was_leader and core.commit_index > seen.commit_index:
            self._check_commit_rule(node, group, replica, seen)
        self._follow_commits(node, history, seen, replica)
        if replica.awaited is None:
            told = _told(replica)
            if seen.compared_at != told:
                self._check_state(node, history, replica)
                seen.compared_at = told
            self._check_start(node, history, replica)
        settings = self._nodes[node].world.settings.replication
        check_bounds(f"{node} group {group}", replica, settings, seen.largest_batch_bytes)
        check_deposed(node, replica)
        check_asleep(node, replica)

    def _check_commit_rule(self, node: NodeId, group: int, replica: Replica, seen: _Seen) -> None:
        """A leader counts replicas only of a batch of its own term (Raft §5.4.2)."""
        core = replica.core
        last = seen.batches[core.commit_index - 1].header if seen.batches else None
        if core.role is Role.LEADER and (last is None or last.term != core.term):
            raise Violation(f"{node} group {group} commits {last} by counting in term {core.term}")

    def _reopened(self, node: NodeId, history: GroupHistory, replica: Replica, seen: _Seen) -> None:
        """What was durable when the process before ended is there, term and log, but for what was
        deleted.

        A saved state may be missing, never damaged: disks only lose what was not synced.
        """
        group, log = history.group, replica.log
        if replica.core.term < seen.promised_term:
            raise Violation(
                f"{node} group {group} comes back in term {replica.core.term} "
                f"and has spoken in term {seen.promised_term}"
            )
        check_vote_kept(node, history, replica)
        durable = seen.batches[log.start_index - 1 : seen.durable_index]
        found = list(log.batches(log.start_index)) if log.last_index >= log.start_index else []
        for before, after in zip(durable, found, strict=False):
            if bytes(before.head) != bytes(after.head):
                raise Violation(
                    f"{node} group {group}: {before.header} came back as {after.header}"
                )
        if len(found) < len(durable) and self._moves.left(node, group):
            seen.forgotten = []
        elif len(found) < len(durable) and replica.core.recovering:
            seen.forgotten = seen.batches[: seen.durable_index]
        elif len(found) < len(durable) and (
            not log.recovery.was_emptied or self._lies_before(history, seen, log.start_index)
        ):
            raise Violation(
                f"{node} group {group} comes back with {len(found)} batches, "
                f"{len(durable)} were durable"
            )
        saved = load_newest(self._nodes[node].disk, f"{DATA_DIRECTORY}/{group}", _NO_LIMIT)
        if saved.damage:
            raise Violation(f"{node} group {group} comes back with {saved.damage[0]}")
        seen.replica = replica
        seen.compared_at = ()
        seen.batches = []
        seen.commit_index = 0

    def _lies_before(self, history: GroupHistory, seen: _Seen, start_index: int) -> bool:
        """Whether what was there led up to a log that begins at ``start_index``: it only needed
        what follows, and what it has acknowledged must stay."""
        before = start_index - 1
        head = bytes(history.committed[before - 1].head) if before else b""
        return _holds(seen.batches[: seen.durable_index], before, head)

    def _follow_log(self, node: NodeId, history: GroupHistory, seen: _Seen, log: Log) -> None:
        """Take in what was appended and cut since the last look."""
        batches = seen.batches
        before = log.start_index - 1
        if len(batches) < before:
            # What is not there any more was committed, and is taken for that.
            history.complete_from(log.start_index)
            batches[:] = history.committed[:before]
        same = min(len(batches), log.last_index)
        while same > before and log.term_at(same) != batches[same - 1].header.term:
            same -= 1
        if same < seen.commit_index:
            raise Violation(
                f"{node} group {history.group} cut its log to {same}, a committed place"
            )
        del batches[same:]
        while len(batches) < log.last_index:
            for batch in log.slice(len(batches) + 1, _SLICE_BYTES):
                prev_term = batches[-1].header.term if batches else 0
                history.appended(node, batch, prev_term)
                batches.append(batch)
                seen.largest_batch_bytes = max(seen.largest_batch_bytes, batch.size_bytes)

    def _follow_commits(
        self, node: NodeId, history: GroupHistory, seen: _Seen, replica: Replica
    ) -> None:
        core = replica.core
        if core.commit_index < seen.commit_index or core.commit_index > len(seen.batches):
            raise Violation(
                f"{node} group {history.group}: commit index {core.commit_index} after "
                f"{seen.commit_index}, with {len(seen.batches)} batches"
            )
        for number in range(seen.commit_index, core.commit_index):
            batch = seen.batches[number]
            is_new = number >= len(history.committed)
            history.commit(node, core.term, batch)
            if is_new:
                self._check_durable(history.group, batch, core)
                if history.group == METADATA_GROUP:
                    self._moves.committed(batch)
        seen.commit_index = core.commit_index

    def _check_state(self, node: NodeId, history: GroupHistory, replica: Replica) -> None:
        """What is applied is committed, and the state is what it comes to, restored or not."""
        index = replica.applied_index
        if index > replica.core.commit_index:
            raise Violation(f"{node} group {history.group} applied {index}, which is not committed")
        if index < history.complete_from(replica.log.start_index):
            return
        if replica.state_machine.snapshot() != self._states.at(history, index):
            raise Violation(
                f"{node} group {history.group}: the state at {index} is not what the batches "
                "through it come to"
            )

    def check_states(self) -> None:
        """Every state is what its log comes to, also where nothing was applied since it was."""
        for node in self._members:
            for group, replica in node.host.replicas.items() if node.host else ():
                if replica.awaited is None:
                    self._check_state(node.node_id, self.history(group), replica)

    def _check_start(self, node: NodeId, history: GroupHistory, replica: Replica) -> None:
        """The log begins where what is applied says; further on only where that is committed."""
        applied, newest = history.starts[replica.applied_index], history.starts[-1]
        if not applied.offset <= replica.log.start_offset <= newest.offset:
            raise Violation(
                f"{node} group {history.group} has applied {replica.applied_index} and begins at "
                f"{replica.log.start_offset}, not at {applied.offset} to {newest.offset}"
            )

    def _check_durable(self, group: int, batch: Batch, core: RaftCore) -> None:
        """A batch is on the disks of a majority before anybody calls it committed: of the voters,
        and of those before, as the leader knows them."""
        index, head = batch.header.index, bytes(batch.head)
        holders = {
            node
            for (node, held_group), seen in self._seen.items()
            if held_group == group
            and (
                _holds(seen.batches[: seen.durable_index], index, head)
                # It votes for nobody who lacks it: it votes for nobody before it has it again.
                or _holds(seen.forgotten, index, head)
            )
        }
        members = core.members
        is_leader = core.role is Role.LEADER
        for voters in (members.voters, members.outgoing if is_leader else ()):
            if voters and len(holders & set(voters)) <= len(voters) // 2:
                raise Violation(
                    f"group {group}: batch {index} is committed and durable at {sorted(holders)} "
                    f"only, of {members}"
                )

    def left(self, node: NodeId, group: GroupId) -> None:
        """``node`` has deleted its replica of ``group``."""
        seen = self._seen_of(node, group)
        # One that left before may be opened, empty, until its process knows as much again.
        if not self._moves.left(node, group) and seen.durable_index:
            self._violation = Violation(f"{node} deletes its replica of group {group} unasked")
        self._seen[node, group] = _Seen(promised_term=seen.promised_term)
        for known in self._open.values():
            known.pop(group, None)

    # -- what is said to others ----------------------------------------------------------------

    def sent(self, source: str, target: str, group: GroupId, payload: bytes) -> None:
        """A tap of the network: a message is a promise, whether it arrives or not."""
        if group == BEAT_GROUP or payload[0] == _APPEND_REQUEST_TYPE or payload[0] >= FIRST_TYPE:
            return
        message = decode(memoryview(payload))
        try:
            if isinstance(message, VoteRequest) and not message.pre:
                self.history(group).voted(source, message.term, source)
                self._promise_term(source, group, message.term)
            elif isinstance(message, VoteResponse) and not message.pre and message.granted:
                self.history(group).voted(source, message.term, target)
                self._promise_term(source, group, message.term)
                self._check_voter(NodeId(source), group, message)
            elif isinstance(message, AppendResponse) and message.success:
                self._promise_term(source, group, message.term)
                self._check_acknowledgement(source, group, message)
        except Violation as violation:
            # Not here: the sender would take it for a failure of its own.
            self._violation = self._violation or violation

    def _promise_term(self, node: str, group: int, term: int) -> None:
        seen = self._seen_of(NodeId(node), group)
        if term > seen.promised_term:
            seen.promised_term = term

    def _check_voter(self, node: NodeId, group: GroupId, message: VoteResponse) -> None:
        host, seen = self._nodes[node].host, self._seen[node, group]
        replica = host.replicas.get(group) if host is not None else None
        if seen.forgotten and replica is not None:
            what = f"votes in term {message.term}"
            check_whole(node, self.history(group), seen.forgotten, replica.log, what)

    def _check_acknowledgement(self, node: str, group: GroupId, message: AppendResponse) -> None:
        host = self._nodes[NodeId(node)].host
        replica = host.replicas.get(group) if host is not None else None
        # A newer leader may have cut what is acknowledged to an older one.
        if replica is not None and replica.core.term == message.term:
            durable_index = replica.log.durable_index
            if durable_index < message.match_index:
                raise Violation(
                    f"{node} group {group} acknowledges {message.match_index} "
                    f"and is durable through {durable_index}"
                )


def _told(replica: Replica) -> tuple[object, ...]:
    """What is applied, appended, and whether it leads: all that a state machine hears of."""
    return replica.applied_index, replica.log.last_index, replica.core.role


def _holds(batches: list[Batch], index: int, head: bytes) -> bool:
    return len(batches) >= index and bytes(batches[index - 1].head) == head
