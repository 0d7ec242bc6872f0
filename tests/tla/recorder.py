"""What the cores of one group did, as the specification in ``Raft.tla`` speaks of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from quorumlog.log.batch import Batch, Kind
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import AppendResponse, Message, VoteResponse
from quorumlog.replication.core.ready import ReadAllowed, Ready
from quorumlog.types import Index, NodeId
from raft.lockstep import Lockstep
from raft.member import RaftMember
from tla.trace import FRESH, State, Trace, trace_line

_FAULTY_S: Final = 0.6
_MOST_VOTERS: Final = 3
"""At first. A trace of more nodes says little more, and takes long."""


class RecordedGroup(Lockstep):
    """A group in bad weather; :attr:`recorded` is its trace.

    Few proposals and reads, many crashes, cuts, orders and changes: a short trace is to see much.
    """

    def __init__(self, seed: int) -> None:
        """``seed``: one of :func:`usable_seeds`."""
        super().__init__(seed)
        self.recorded = Trace(tuple(self.nodes), self.members.voters, [])
        self._states: dict[NodeId, State] = {}
        self._incarnations: dict[NodeId, int] = {}
        self._said: dict[NodeId, tuple[int, int, tuple[int, ...]]] = {}
        self._rounds_wanted: dict[int, dict[int, int]] = {}
        """By term: the reads that wait, and for which round."""
        self._rounds_said: set[tuple[NodeId, int, int]] = set()
        weather = self.weather
        weather.propose_every_s = 0.05
        weather.read_every_s = 0.03
        for name in ("crash_every_s", "cut_every_s", "order_every_s", "change_every_s"):
            setattr(weather, name, min(getattr(weather, name), 0.2))

    # -- what a node is ------------------------------------------------------------------------

    def _after_input(self, node: RaftMember) -> None:
        """Before anything leaves: what is sent relies on the state that is noted here."""
        self._note(node)
        super()._after_input(node)
        self._note(node)

    def _note(self, node: RaftMember) -> None:
        new = _state_of(node)
        if node.incarnation != self._incarnations.get(node.node_id, 0):
            self._incarnations[node.node_id] = node.incarnation
            self._said.pop(node.node_id, None)
            self._add("restart", node.node_id, new=new)
        else:
            self._note_steps(node, self._states.get(node.node_id, FRESH), new)
        self._states[node.node_id] = new

    def _note_steps(self, node: RaftMember, old: State, new: State) -> None:
        """One input may do what the specification knows as several steps."""
        me = node.node_id
        if new.role == "candidate" and new.term > old.term + 1:
            old = self._become(me, replace(FRESH, term=new.term - 1, log=old.log), old)
        if new.role == "leader" and old.role == "follower":
            stands = State(new.term, me, "candidate", old.log, old.commit)
            old = self._become(me, stands, old)
        if old.role == "leader" and new.term == old.term:
            old = self._lead(node, old, new)
        self._become(me, new, old)

    def _lead(self, node: RaftMember, old: State, new: State) -> State:
        """A leader commits, and then appends a configuration or leaves."""
        changes = _configurations(node.log.batches[len(old.log) :])
        kept = new.log[: changes[0][0] - 1] if changes else new.log
        old = self._become(node.node_id, replace(old, log=kept, commit=new.commit), old)
        for index, members in changes:
            old = replace(old, log=new.log[:index])
            voters, outgoing = frozenset(members.voters), frozenset(members.outgoing)
            self._add("configure", node.node_id, new=old, voters=voters, outgoing=outgoing)
        return old

    def _become(self, node_id: NodeId, new: State, old: State) -> State:
        if new != old:
            self._add("become", node_id, new=new)
        return new

    # -- what it says --------------------------------------------------------------------------

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._add("vote", sender, term=message.term, candidate=receiver)
        elif isinstance(message, AppendResponse) and message.success:
            durable = self.nodes[sender].durable
            self._acknowledge(sender, message.term, message.match_index, durable)
        super()._send(sender, receiver, message)

    def _end_flush(self, node: RaftMember) -> None:
        """A leader acknowledges to itself what is in its log, and on its disk from now on."""
        flushed = node.flush.batches if node.flush is not None else None
        if flushed and self._states[node.node_id].role == "leader":
            last = flushed[-1].header
            if last.index <= node.log.last_index and node.log.term_at(last.index) == last.term:
                self._acknowledge(node.node_id, node.core.term, last.index, flushed)
        super()._end_flush(node)

    def _acknowledge(self, sender: NodeId, term: int, upto: int, durable: Sequence[Batch]) -> None:
        """Heartbeats are answered with what was said before: once is enough."""
        disk = _terms(durable)
        said = (term, upto, disk)
        if said != self._said.get(sender):
            self._said[sender] = said
            self._add("acknowledge", sender, term=term, upto=upto, disk=disk)

    # -- reads ---------------------------------------------------------------------------------

    def _ask_lease(self, node: RaftMember) -> Index | None:
        index = super()._ask_lease(node)
        if index is not None:
            self._add("lease", node.node_id, index=index)
        return index

    def _ask_group(self, node: RaftMember) -> int:
        number = super()._ask_group(node)
        leadership = node.core.leadership
        if leadership is None:
            raise AssertionError(f"{node.node_id} asks and does not lead")
        newest = leadership._reads.round
        self._rounds_wanted.setdefault(node.core.term, {})[number] = newest
        self._add("ask", node.node_id, number=number, round=newest)
        return number

    def _observe(self, node: RaftMember, ready: Ready) -> None:
        """An answer is noted when it is given, not when a flush lets it go: it says what held then;
        and only where a read waits for it."""
        for _, message in ready.messages + ready.durable_messages:
            if isinstance(message, AppendResponse):
                self._answer_round(node.node_id, message.term, message.round)
        term = node.core.term
        for event in ready.events:
            if isinstance(event, ReadAllowed):
                del self._rounds_wanted[term][event.number]
                self._add("serve", node.node_id, term=term, number=event.number, index=event.index)
        super()._observe(node, ready)

    def _answer_round(self, node_id: NodeId, term: int, answered: int) -> None:
        said = (node_id, term, answered)
        wanted = self._rounds_wanted.get(term, {})
        if said not in self._rounds_said and any(each <= answered for each in wanted.values()):
            self._rounds_said.add(said)
            self._add("round", node_id, term=term, round=answered)

    def _add(self, kind: str, node: NodeId, **fields: object) -> None:
        self.recorded.events.append(trace_line(kind, node, **fields))


def record_run(group: RecordedGroup) -> None:
    """Let ``group`` run as long as a short trace lasts.

    Raises:
        AssertionError: its own checks fail; the events through that moment are there.
    """
    group.run(faulty_s=_FAULTY_S)


def usable_seeds(count: int, start: int = 0) -> list[int]:
    """Seeds from ``start`` on whose groups make a trace of a bearable length."""
    found: list[int] = []
    seed = start
    while len(found) < count:
        if len(Lockstep(seed).members.voters) <= _MOST_VOTERS:
            found.append(seed)
        seed += 1
    return found


def _state_of(node: RaftMember) -> State:
    core = node.core
    role = core.role.value
    # Who asks for pre-votes is still a follower.
    known = role if role in ("candidate", "leader") else "follower"
    return State(core.term, core.vote or "none", known, _terms(node.log.batches), core.commit_index)


def _terms(batches: Sequence[Batch]) -> tuple[int, ...]:
    return tuple(batch.header.term for batch in batches)


def _configurations(batches: Sequence[Batch]) -> list[tuple[int, Members]]:
    return [
        (batch.header.index, Members.decode(batch.body))
        for batch in batches
        if batch.header.kind is Kind.CONFIG
    ]
