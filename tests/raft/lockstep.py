"""A whole group of cores in one thread, under virtual time, with faults, from one seed.

Only the cores are real: the log is a list, the network a heap. What the real log, driver and
transport do to Raft is the business of ``tests/sim``; this is fast enough to run at every change.
"""

import heapq
import random
from collections.abc import Callable

from quorumlog.errors import NotLeader, Overloaded, Unavailable
from quorumlog.log.batch import Draft
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.core import Role
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import Message
from quorumlog.replication.core.ready import ReadAllowed, Ready
from quorumlog.replication.wire import decode, encode
from quorumlog.types import Index, NodeId
from raft.checkers import SafetyChecker, SafetyError
from raft.member import RaftMember
from raft.weather import Weather, draw_weather

MAX_UNCOMMITTED = 200
"""Batches; a leader with more gets no new ones, as a driver with a bound would have it."""

PATIENCE = 20
"""Tenths of a second of calm in which nothing moves on, after which a group counts as stuck."""


class Lockstep:
    def __init__(self, seed: int, draw: Callable[[random.Random], Weather] = draw_weather) -> None:
        self._network = random.Random(f"network {seed}")
        self._disk = random.Random(f"disk {seed}")
        self._nemesis = random.Random(f"nemesis {seed}")
        self.now = 0.0
        self.weather = draw(self._nemesis)
        self.trace: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._cut: dict[tuple[NodeId, NodeId], bool] = {}
        self._timers: dict[NodeId, float] = {}
        clocks = random.Random(f"clocks {seed}")
        self._rates: dict[NodeId, float] = {}
        self._reads: dict[tuple[NodeId, int, int], int] = {}
        self.reads_answered = 0
        self._proposed = 0
        self._goal = 0
        voters = self._nemesis.choice((1, 2, 3, 3, 3, 3, 4, 5, 5))
        learners = self._nemesis.choice((0, 0, 1))
        ids = [NodeId(f"n{number}") for number in range(voters + 2)]
        self.members = Members(tuple(ids[:voters]), tuple(ids[voters : voters + learners]))
        append_bytes = self._nemesis.choice((100, 400, 1 << 20))
        config = RaftConfig(
            election_timeout_s=0.1,
            heartbeat_s=0.02,
            max_append_bytes=append_bytes,
            max_inflight_bytes=append_bytes * self._nemesis.choice((1, 2, 20)),
            max_inflight_messages=self._nemesis.choice((1, 3, 256)),
            coalesce_bytes=random.Random(f"coalesce {seed}").choice((0, 200, 64 * 1024)),
        )
        self.nodes: dict[NodeId, RaftMember] = {}
        self.checker = SafetyChecker(self.nodes)
        for node_id in ids:
            self._rates[node_id] = clocks.choice(self.weather.rates)
            if self.weather.is_first_favoured:
                extreme = min if node_id == ids[0] else max
                self._rates[node_id] = extreme(self.weather.rates)
            self.nodes[node_id] = RaftMember(
                node_id,
                self.members,
                config,
                random.Random(f"{node_id} {seed}"),
                self._send,
                self._observe,
            )

    # -- the run -------------------------------------------------------------------------------

    def run(self, faulty_s: float) -> None:
        """``faulty_s`` virtual seconds of bad weather, then a calm in which all has to recover."""
        for node in self.nodes.values():
            self._after_input(node)
        self._every(self.weather.crash_every_s, faulty_s, self._crash_or_restart)
        self._every(self.weather.bounce_every_s, faulty_s, self._bounce)
        self._every(self.weather.cut_every_s, faulty_s, self._cut_or_heal)
        self._every(self.weather.order_every_s, faulty_s, self._give_order)
        self._every(self.weather.change_every_s, faulty_s, self._change_members)
        self._every(self.weather.read_every_s, faulty_s, self._read)
        self._every(self.weather.propose_every_s, faulty_s, self._propose)
        self._run_until(faulty_s)
        self._heal()
        # Time for three elections that nobody wins.
        self._run_until(self.now + 0.6)
        self._goal = len(self.checker.committed)
        self._propose()
        progress, patience = -1, PATIENCE
        while patience and self._what_is_missing() is not None:
            self._run_until(self.now + 0.1)
            before, progress = progress, self._progress()
            patience = PATIENCE if progress > before else patience - 1
        if self._what_is_missing() is None:
            return
        raise AssertionError(f"no recovery: {self._what_is_missing()}")

    def _run_until(self, end: float) -> None:
        events = self._events
        while events and events[0][0] <= end:
            self.now, _, action = heapq.heappop(events)
            action()
        self.now = end

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, action))

    def _every(self, mean_s: float, until: float, action: Callable[[], None]) -> None:
        def happen() -> None:
            action()
            self._every(mean_s, until, action)

        time = self.now + self._nemesis.expovariate(1 / mean_s)
        if time < until:
            self._at(time, happen)

    def _observe(self, node: RaftMember, ready: Ready) -> None:
        self.checker.observe(node, ready)
        for event in ready.events:
            if isinstance(event, ReadAllowed):
                wanted = self._reads.pop((node.node_id, node.core.term, event.number))
                self._check_read(node, event.index, wanted)
                continue
            self.trace.append(f"{self.now:.6f} {node.node_id} {event}")

    # -- a node's inputs -----------------------------------------------------------------------

    def _after_input(self, node: RaftMember) -> None:
        if node.drain():
            node.begin_flush()
            incarnation = node.incarnation
            middle = self.now + self._disk.expovariate(1 / self.weather.disk_s)
            end = middle + self._disk.expovariate(1 / self.weather.disk_s)
            self._at(middle, lambda: self._if_same(node, incarnation, node.write_flush))
            self._at(end, lambda: self._if_same(node, incarnation, lambda: self._end_flush(node)))
        # Rounded up: at that moment the node's own clock has passed its deadline.
        deadline = node.core.deadline / self._rates[node.node_id] + 1e-9
        if deadline < self._timers.get(node.node_id, float("inf")):
            self._timers[node.node_id] = deadline
            self._at(deadline, lambda: self._timer_fired(node, deadline))

    def _if_same(self, node: RaftMember, incarnation: int, action: Callable[[], None]) -> None:
        if node.alive and node.incarnation == incarnation:
            action()

    def _end_flush(self, node: RaftMember) -> None:
        node.end_flush(self._now_of(node))
        self._after_input(node)

    def _timer_fired(self, node: RaftMember, time: float) -> None:
        if self._timers.get(node.node_id) != time:
            return
        del self._timers[node.node_id]
        if node.alive:
            node.core.tick(self._now_of(node))
            self._after_input(node)

    def _now_of(self, node: RaftMember) -> float:
        """What the clock of ``node`` shows."""
        return self.now * self._rates[node.node_id]

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        self.checker.sent(sender, receiver, message)
        rng, weather = self._network, self.weather
        if (sender, receiver) in self._cut:
            return
        copies = 1 + (rng.random() < weather.duplication)
        if self.weather.over_wire:
            message = decode(encode(message))
        for _ in range(copies):
            if rng.random() < weather.loss:
                continue
            delay_s = weather.latency_s * (0.5 + rng.random())
            if rng.random() < weather.straggle:
                delay_s *= rng.uniform(1, 40)
            self._at(self.now + delay_s, lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        node = self.nodes[receiver]
        if node.alive and (sender, receiver) not in self._cut:
            node.core.receive(sender, message, self._now_of(node))
            self._after_input(node)

    # -- workload and nemesis ------------------------------------------------------------------

    def _leaders(self) -> list[RaftMember]:
        return [
            node for node in self.nodes.values() if node.alive and node.core.role is Role.LEADER
        ]

    def _propose(self) -> None:
        for node in self._leaders():
            if node.log.last_index - node.core.commit_index > MAX_UNCOMMITTED:
                continue
            count = self._nemesis.choice((1, 1, 2, 4, 12))
            drafts = [Draft.of(b"%d" % (self._proposed + n), 1) for n in range(count)]
            try:
                node.core.propose(drafts, int(self.now * 1000), self._now_of(node))
            except NotLeader:
                continue
            self._proposed += count
            self._after_input(node)

    def _crash_or_restart(self) -> None:
        self._crash_or_restart_one(self._nemesis.choice(list(self.nodes.values())))

    def _crash_or_restart_one(self, node: RaftMember) -> None:
        if node.alive:
            node.crash(self._disk)
            self._timers.pop(node.node_id, None)
        else:
            node.restart(self._now_of(node))
            self._after_input(node)

    def _bounce(self) -> None:
        node = self._nemesis.choice(list(self.nodes.values()))
        if node.alive and node.core.role is not Role.LEADER:
            self._crash_or_restart_one(node)
            self._crash_or_restart_one(node)

    def _cut_or_heal(self) -> None:
        if self._cut:
            self._cut.clear()
            return
        ids = list(self.nodes)
        some = self._nemesis.sample(ids, self._nemesis.randint(1, len(ids) - 1))
        leaders = self._leaders()
        if leaders and self._nemesis.random() < self.weather.leader_only:
            # A leader with none or few beside it goes on appending what will be cut off.
            some = list({leaders[0].node_id: True, some[0]: True})
            if self._nemesis.random() < self.weather.one_link:
                one, other = leaders[0].node_id, self._nemesis.choice(ids)
                self._cut[one, other] = self._cut[other, one] = True
                return
        one_way = self._nemesis.random() < self.weather.one_way
        for inside in some:
            for outside in ids:
                if outside not in some:
                    self._cut[inside, outside] = True
                    if not one_way:
                        self._cut[outside, inside] = True

    def _give_order(self) -> None:
        target = self._nemesis.choice(list(self.nodes.values()))
        what = self._nemesis.random()
        if self.weather.is_first_favoured:
            target, what = next(iter(self.nodes.values())), 1.0
        if what < 0.3 and target.alive:
            target.core.campaign(self._now_of(target))
            self._after_input(target)
            return
        for node in self._leaders():
            if target.node_id in node.core.members.voters:
                node.core.transfer_leadership(target.node_id, self._now_of(node))
                self._after_input(node)

    def _change_members(self) -> None:
        for node in self._leaders():
            wanted = self._some_members(node.core.members)
            try:
                node.core.propose_members(wanted, int(self.now * 1000), self._now_of(node))
            except Unavailable:
                continue
            self._after_input(node)

    def _some_members(self, current: Members) -> Members:
        """A change that may be asked for: most learners become voters, some voters less."""
        rng = self._nemesis
        voters = [node_id for node_id in current.voters if rng.random() < 0.8]
        voters += [node_id for node_id in current.learners if rng.random() < 0.8]
        voters = voters or list(current.voters)
        others = [node_id for node_id in self.nodes if node_id not in voters]
        learners = [node_id for node_id in others if rng.random() < 0.7]
        return Members(tuple(voters), tuple(learners))

    # -- reads ---------------------------------------------------------------------------------

    def _read(self) -> None:
        """Whoever believes to lead is asked: it may know all that is committed, or not answer."""
        for node in self._leaders():
            committed = len(self.checker.committed)
            index = self._ask_lease(node)
            if index is not None:
                self._check_read(node, index, committed)
            if index is None or self._nemesis.random() < 0.3:
                try:
                    number = self._ask_group(node)
                except Overloaded:
                    continue
                self._reads[node.node_id, node.core.term, number] = committed
                self._after_input(node)

    def _ask_lease(self, node: RaftMember) -> Index | None:
        return node.core.lease_index(self._now_of(node))

    def _ask_group(self, node: RaftMember) -> int:
        """The number of the read. Raises Overloaded."""
        return node.core.read(self._now_of(node))

    def _check_read(self, node: RaftMember, index: int, committed: int) -> None:
        if index < committed:
            raise SafetyError(
                f"{node.node_id} answers a read with what {index} batches say, "
                f"and {committed} were committed before it was asked"
            )
        self.reads_answered += 1

    # -- recovery ------------------------------------------------------------------------------

    def _heal(self) -> None:
        self._cut.clear()
        weather = self.weather
        weather.loss = weather.duplication = weather.straggle = 0.0
        weather.latency_s = min(weather.latency_s, 0.0005)
        weather.disk_s = min(weather.disk_s, 0.0005)
        for node in self.nodes.values():
            if not node.alive:
                node.restart(self._now_of(node))
                self._after_input(node)

    def _progress(self) -> int:
        return sum(node.log.last_index + node.core.commit_index for node in self.nodes.values())

    def _what_is_missing(self) -> str | None:
        leaders = self._leaders()
        if len(leaders) != 1:
            return f"leaders {[node.node_id for node in leaders]}"
        (leader,) = leaders
        committed = len(self.checker.committed)
        if not leader.log.last_index == leader.core.commit_index == committed > self._goal:
            return f"committed {committed} of {leader.log.last_index}, wanted above {self._goal}"
        members = leader.core.members
        if members.outgoing:
            return f"the change to {members.voters} does not end"
        for node_id in members.everybody:
            core = self.nodes[node_id].core
            if (core.commit_index, core.leader_id) != (committed, leader.node_id):
                return f"{node_id} is at {core.commit_index} of {committed} under {core.leader_id}"
        return None
