"""What the cores of one group did, as the specification in ``Raft.tla`` speaks of it."""

from dataclasses import dataclass
from typing import Final

from quorumlog.replication.core.messages import AppendResponse, Message, VoteResponse
from quorumlog.types import NodeId
from raft.lockstep import Lockstep
from raft.member import RaftMember

VOTERS: Final = 3

_FAULTY_S: Final = 0.6


@dataclass(frozen=True, slots=True)
class State:
    """A node's Raft state; the log is the terms of its entries."""

    term: int
    vote: str
    role: str
    log: tuple[int, ...]
    commit: int


class RecordedGroup(Lockstep):
    """Three voters in bad weather that never change; ``events`` are records of TLA+.

    Few proposals, many crashes, cuts and orders: a short trace is to see much.
    """

    def __init__(self, seed: int) -> None:
        """``seed``: one of :func:`usable_seeds`."""
        super().__init__(seed)
        self.events: list[str] = []
        self._states: dict[NodeId, State] = {}
        self._incarnations: dict[NodeId, int] = {}
        self._said: dict[NodeId, tuple[int, int, tuple[int, ...]]] = {}
        weather = self.weather
        weather.propose_every_s = 0.05
        weather.crash_every_s = min(weather.crash_every_s, 0.2)
        weather.cut_every_s = min(weather.cut_every_s, 0.2)
        weather.order_every_s = min(weather.order_every_s, 0.2)

    def _change_members(self) -> None:
        """The specification knows none of that."""

    def _after_input(self, node: RaftMember) -> None:
        """Before anything leaves: what is sent relies on the state that is noted here."""
        self._note(node)
        super()._after_input(node)
        self._note(node)

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._add("vote", sender, term=message.term, candidate=receiver)
        elif isinstance(message, AppendResponse) and message.success:
            self._acknowledge(sender, message)
        super()._send(sender, receiver, message)

    def _acknowledge(self, sender: NodeId, message: AppendResponse) -> None:
        """Heartbeats are answered with what was said before: once is enough."""
        disk = tuple(batch.header.term for batch in self.nodes[sender].durable)
        said = (message.term, message.match_index, disk)
        if said != self._said.get(sender):
            self._said[sender] = said
            self._add("acknowledge", sender, term=message.term, upto=message.match_index, disk=disk)

    def _note(self, node: RaftMember) -> None:
        if node.node_id not in self.members.voters:
            return
        core = node.core
        state = State(
            core.term,
            core.vote or "none",
            _role(core.role.value),
            tuple(batch.header.term for batch in node.log.batches),
            core.commit_index,
        )
        if node.incarnation != self._incarnations.get(node.node_id, 0):
            self._incarnations[node.node_id] = node.incarnation
            self._said.pop(node.node_id, None)
            self._add("restart", node.node_id, new=state)
        elif state != self._states.get(node.node_id, _FRESH):
            self._add("become", node.node_id, new=state)
        self._states[node.node_id] = state

    def _add(self, kind: str, node: NodeId, **fields: object) -> None:
        self.events.append(trace_line(kind, node, **fields))


def record_run(group: RecordedGroup) -> None:
    """Let ``group`` run as long as a short trace lasts.

    Raises:
        AssertionError: its own checks fail; the events through that moment are there.
    """
    group.run(faulty_s=_FAULTY_S)


def trace_line(kind: str, node: str, **fields: object) -> str:
    """An event as a record of TLA+."""
    return _record({"kind": kind, "node": node, **fields})


_FRESH: Final = State(0, "none", "follower", (), 0)


def _role(role: str) -> str:
    """Who asks for pre-votes is still a follower."""
    return role if role in ("candidate", "leader") else "follower"


def usable_seeds(count: int, start: int = 0) -> list[int]:
    """Seeds from ``start`` on whose groups the specification can speak of."""
    found: list[int] = []
    seed = start
    while len(found) < count:
        members = Lockstep(seed).members
        if len(members.voters) == VOTERS and not members.learners:
            found.append(seed)
        seed += 1
    return found


def _record(fields: dict[str, object]) -> str:
    """``[name |-> value, ...]``."""
    return "[" + ", ".join(f"{name} |-> {_value(value)}" for name, value in fields.items()) + "]"


def _value(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"<<{', '.join(map(_value, value))}>>"
    if isinstance(value, State):
        return _record({name: getattr(value, name) for name in State.__slots__})
    return str(value)
