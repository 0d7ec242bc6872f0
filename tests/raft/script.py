"""A small language to tell stories about a group, and their transcripts.

A script is a text file: paragraphs of commands, ``----``, then what happened. Time stands still
unless told otherwise, disks are done at once unless held, messages wait until delivered.

====================================  =========================================================
command                               meaning
====================================  =========================================================
group n1 n2 [learners n3] [spare n4]  the members (later ones stand for election later)
limits append=B inflight=B messages=N bounds of the leader's window, before the members start
member n1 term=T vote=n2 log=1,1,2    what n1's disk holds at first: the terms of its batches
tick S                                S seconds go by; everybody's timers fire in order
pass S                                the same, and every message arrives at once
propose n1 [COUNT]                    COUNT batches at the leader n1, in one turn
campaign n1 · transfer n1 n2          orders
read n1                               ask n1 for a current read: at once under its lease, or later
rounds                                from here on the rounds of messages are written down
learners n1 n4 n5 · learners n1       the leader n1 changes the learners to these; to none
members n1 n1 n2 [learners n3]        the leader n1 changes the members to these
deliver [n1 n2 [COUNT]]               the messages on their way now (the first from n1 to n2)
drop n1 n2 [COUNT] · double n1 n2     lose, or send again, the messages on their way from n1 to n2
last-first n1 n2                      reverse the messages on their way from n1 to n2
settle                                deliver until nothing is on its way
cut n1 n2 · isolate n1 · heal         messages between them get lost; all of n1's; no longer
hold n1 · release n1                  n1's disk does not finish; finishes what it has, and goes on
crash n1 · restart n1                 losing what was not flushed
quiet · loud                          whether messages are written down
status                                role, term, vote, leader, commit index and log of everybody
who                                   the members as everybody has them
====================================  =========================================================
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

from quorumlog.errors import QuorumlogError
from quorumlog.log.batch import Draft
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.core.ready import (
    BecameLeader,
    Event,
    LeaderChanged,
    MembersChanged,
    ReadAllowed,
    Ready,
)
from quorumlog.types import NodeId, Term
from raft.member import RaftMember
from raft.memory_log import batches_of, terms_of

SEPARATOR = "----"


class FixedRng:
    """Always the same place in the range, so that the first member is the first to time out."""

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def uniform(self, a: float, b: float, /) -> float:
        return a + (b - a) * self._fraction


class Story:
    def __init__(self) -> None:
        self.nodes: dict[NodeId, RaftMember] = {}
        self.now = 0.0
        self._members = Members(())
        self._order: list[NodeId] = []
        self._limits: dict[str, int] = {"coalesce_bytes": 0}
        self._disks: dict[NodeId, tuple[HardState, list[int]]] = {}
        self._wire: list[tuple[NodeId, NodeId, Message]] = []
        self._cut: list[tuple[NodeId, NodeId]] = []
        self._held: list[NodeId] = []
        self._loud = True
        self._rounds = False
        self._shown_commit: dict[NodeId, int] = {}
        self._lines: list[str] = []

    def do(self, line: str) -> list[str]:
        """Run one command; what happened, a line each."""
        self._lines = []
        name, *arguments = line.split()
        command: Callable[..., None] = getattr(self, "do_" + name.replace("-", "_"))
        if name not in ("group", "limits", "member", "hold"):
            self._start()
        try:
            command(*arguments)
        except QuorumlogError as error:
            self._lines.append(f"{type(error).__name__}: {error}")
        return self._lines

    # -- setting up ----------------------------------------------------------------------------

    def do_group(self, *ids: str) -> None:
        spare_at = ids.index("spare") if "spare" in ids else len(ids)
        self._members = parse_members(ids[:spare_at])
        self._order = [NodeId(name) for name in ids if name not in ("learners", "spare")]

    def do_limits(self, *limits: str) -> None:
        names = {
            "append": "max_append_bytes",
            "coalesce": "coalesce_bytes",
            "inflight": "max_inflight_bytes",
            "messages": "max_inflight_messages",
        }
        for limit in limits:
            name, value = limit.split("=")
            self._limits[names[name]] = int(value)

    def do_member(self, name: str, *settings: str) -> None:
        values = dict(setting.split("=") for setting in settings)
        terms = [int(term) for term in values.get("log", "").split(",") if term]
        vote = NodeId(values["vote"]) if "vote" in values else None
        self._disks[NodeId(name)] = (HardState(Term(int(values["term"])), vote), terms)

    def _start(self) -> None:
        if self.nodes:
            return
        for number, node_id in enumerate(self._order):
            hard_state, terms = self._disks.get(node_id, (HardState(), []))
            self.nodes[node_id] = RaftMember(
                node_id,
                self._members,
                RaftConfig(**self._limits),
                FixedRng(number / len(self._order)),
                self._send,
                self._observe,
                batches=batches_of(terms),
                hard_state=hard_state,
            )

    # -- inputs --------------------------------------------------------------------------------

    def do_tick(self, seconds: str) -> None:
        end = self.now + float(seconds)
        while (node := self._soonest()).core.deadline <= end:
            self.now = max(self.now, node.core.deadline)
            node.core.tick(self.now)
            self._after_input(node)
        self.now = end

    def do_pass(self, seconds: str) -> None:
        end = self.now + float(seconds)
        self.do_settle()
        while (soonest := self._soonest()).core.deadline <= end:
            self.now = max(self.now, soonest.core.deadline)
            soonest.core.tick(self.now)
            self._after_input(soonest)
            self.do_settle()
        self.now = end

    def _soonest(self) -> RaftMember:
        alive = [node for node in self.nodes.values() if node.alive]
        return min(alive, key=lambda node: node.core.deadline)

    def do_propose(self, name: str, count: str = "1") -> None:
        node = self.nodes[NodeId(name)]
        node.core.propose([Draft.of(b"new", 1) for _ in range(int(count))], 0, self.now)
        self._after_input(node)

    def do_read(self, name: str) -> None:
        node = self.nodes[NodeId(name)]
        index = node.core.lease_index(self.now)
        if index is not None:
            self._lines.append(f"{name} may answer at {index}, by its lease")
            return
        self._lines.append(f"{name} asks for read {node.core.read(self.now)}")
        self._after_input(node)

    def do_campaign(self, name: str) -> None:
        self.nodes[NodeId(name)].core.campaign(self.now)
        self._after_input(self.nodes[NodeId(name)])

    def do_transfer(self, name: str, target: str) -> None:
        self.nodes[NodeId(name)].core.transfer_leadership(NodeId(target), self.now)
        self._after_input(self.nodes[NodeId(name)])

    def do_learners(self, name: str, *learners: str) -> None:
        voters = self.nodes[NodeId(name)].core.members.voters
        self.do_members(name, *voters, "learners", *learners)

    def do_members(self, name: str, *ids: str) -> None:
        node = self.nodes[NodeId(name)]
        node.core.propose_members(parse_members(ids), 0, self.now)
        self._after_input(node)

    # -- the network ---------------------------------------------------------------------------

    def do_deliver(self, *link: str) -> None:
        for sender, receiver, message in self._take(link):
            node = self.nodes.get(receiver)
            if node is not None and node.alive:
                node.core.receive(sender, message, self.now)
                self._after_input(node)

    def do_drop(self, *link: str) -> None:
        for message in self._take(link):
            self._lines.append("lost " + describe(*message))

    def do_double(self, sender: str, receiver: str) -> None:
        self._wire += [(*item,) for item in self._wire if item[:2] == (sender, receiver)]

    def do_last_first(self, sender: str, receiver: str) -> None:
        taken = self._take((sender, receiver))
        self._wire += reversed(taken)

    def do_settle(self) -> None:
        while self._wire:
            self.do_deliver()

    def _take(self, link: tuple[str, ...]) -> list[tuple[NodeId, NodeId, Message]]:
        limit = int(link[2]) if len(link) > 2 else len(self._wire)
        taken = [item for item in self._wire if not link or item[:2] == link[:2]][:limit]
        self._wire = [item for item in self._wire if not any(item is other for other in taken)]
        return taken

    def do_cut(self, one: str, other: str) -> None:
        self._cut += [(NodeId(one), NodeId(other)), (NodeId(other), NodeId(one))]

    def do_isolate(self, name: str) -> None:
        for node_id in self.nodes:
            if node_id != name:
                self.do_cut(name, node_id)

    def do_heal(self) -> None:
        self._cut = []

    # -- disks and crashes ---------------------------------------------------------------------

    def do_hold(self, name: str) -> None:
        self._held.append(NodeId(name))

    def do_release(self, name: str) -> None:
        node = self.nodes[NodeId(name)]
        self._held.remove(node.node_id)
        if node.flush is not None:
            node.write_flush()
            node.end_flush(self.now)
        self._after_input(node)

    def do_crash(self, name: str) -> None:
        # No flush is ever half done in a script: nothing is left to chance.
        self.nodes[NodeId(name)].crash(Random(0))
        self._wire = [item for item in self._wire if item[0] != name]

    def do_restart(self, name: str) -> None:
        self.nodes[NodeId(name)].restart(self.now)
        self._after_input(self.nodes[NodeId(name)])

    def _after_input(self, node: RaftMember) -> None:
        while node.drain():
            node.begin_flush()
            if node.node_id in self._held:
                return
            node.write_flush()
            node.end_flush(self.now)

    # -- what is written down ------------------------------------------------------------------

    def do_quiet(self) -> None:
        self._loud = False

    def do_rounds(self) -> None:
        self._rounds = True

    def do_loud(self) -> None:
        self._loud = True

    def do_status(self) -> None:
        for node in self.nodes.values():
            core = node.core
            if not node.alive:
                self._lines.append(f"{node.node_id} is down")
                continue
            terms = " ".join(str(term) for term in terms_of(node.log))
            self._lines.append(
                f"{node.node_id} {core.role.value} term={core.term} vote={core.vote or '-'} "
                f"leader={core.leader_id or '-'} commit={core.commit_index} log=[{terms}]"
            )

    def do_who(self) -> None:
        for node in self.nodes.values():
            members = describe_members(node.core.members)
            self._lines.append(f"{node.node_id} has {members}" if node.alive else "down")

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        if (sender, receiver) in self._cut:
            return
        self._wire.append((sender, receiver, message))
        if self._loud:
            line = describe(sender, receiver, message)
            if self._rounds and isinstance(message, AppendRequest | AppendResponse):
                line += f" round={message.round}"
            self._lines.append(line)

    def _observe(self, node: RaftMember, ready: Ready) -> None:
        for event in ready.events:
            self._lines.append(f"{node.node_id} {describe_event(event)}")
        if ready.commit_index > self._shown_commit.get(node.node_id, 0):
            self._shown_commit[node.node_id] = ready.commit_index
            if self._loud:
                self._lines.append(f"{node.node_id} commits through {ready.commit_index}")


def describe(sender: NodeId, receiver: NodeId, message: Message) -> str:
    return f"{sender} -> {receiver} {_describe_message(message)}"


def _describe_message(message: Message) -> str:
    if isinstance(message, AppendRequest):
        batches = " ".join(f"{b.header.index}@{b.header.term}" for b in message.batches)
        return (
            f"append term={message.term} after={message.prev_index}@{message.prev_term} "
            f"commit={message.commit_index} [{batches}]"
        )
    if isinstance(message, AppendResponse):
        if message.success:
            return f"appended term={message.term} match={message.match_index}"
        return (
            f"refused term={message.term} at={message.rejected_index} "
            f"hint={message.conflict_index}@{message.conflict_term}"
        )
    if isinstance(message, VoteRequest):
        kind = "pre-vote" if message.pre else "forced vote" if message.force else "vote"
        return f"{kind}? term={message.term} log={message.last_index}@{message.last_term}"
    if isinstance(message, VoteResponse):
        kind = "pre-vote" if message.pre else "vote"
        return f"{kind} {'granted' if message.granted else 'refused'} term={message.term}"
    return f"timeout-now term={message.term}"


def describe_event(event: Event) -> str:
    if isinstance(event, BecameLeader):
        return f"leads term {event.term}"
    if isinstance(event, LeaderChanged):
        return f"follows {event.leader or 'nobody'} in term {event.term}"
    if isinstance(event, MembersChanged):
        return f"has {describe_members(event.members)}"
    if isinstance(event, ReadAllowed):
        return f"may answer read {event.number} at {event.index}"
    return f"no longer leads term {event.term}"


def parse_members(ids: tuple[str, ...]) -> Members:
    """``n1 n2 learners n3``."""
    count = ids.index("learners") if "learners" in ids else len(ids)
    voters, learners = ids[:count], ids[count + 1 :]
    return Members(tuple(map(NodeId, voters)), tuple(map(NodeId, learners)))


def describe_members(members: Members) -> str:
    parts: list[str] = [*members.voters]
    if members.learners:
        parts += ["learners", *members.learners]
    if members.outgoing:
        parts += ["outgoing", *members.outgoing]
    return " ".join(parts)


def replay(text: str) -> str:
    """Run the commands in ``text``; the text with what happens now."""
    story = Story()
    paragraphs: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        commands = paragraph.split(f"\n{SEPARATOR}")[0]
        lines: list[str] = []
        for line in commands.splitlines():
            if not line.startswith("#"):
                lines += story.do(line)
        if all(line.startswith("#") for line in commands.splitlines()):
            paragraphs.append(commands)
        else:
            paragraphs.append("\n".join([commands, SEPARATOR, *lines]))
    return "\n\n".join(paragraphs) + "\n"


def main(arguments: list[str]) -> int:
    """``python -m raft.script --rewrite FILE...``: bring transcripts up to date, for review."""
    if arguments[:1] != ["--rewrite"]:
        print(main.__doc__)
        return 2
    for name in arguments[1:]:
        path = Path(name)
        path.write_text(replay(path.read_text()))
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
