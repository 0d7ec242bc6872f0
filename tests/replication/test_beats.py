"""What two nodes tell each other of sleeping groups, under loss, reorder, silence and restarts."""

import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from quorumlog.errors import ProtocolError
from quorumlog.replication.sleep import beat as beat_module
from quorumlog.replication.sleep.beat import MAX_ENTRIES, Beat, Fell, Woke, decode, encode, mix
from quorumlog.replication.sleep.ledger import MAX_WAKES, Ledger
from quorumlog.types import GroupId, Index, NodeId, Term

L, F = NodeId("leader"), NodeId("follower")
G, H = GroupId(7), GroupId(8)
SILENCE_S = 1.0
BEAT_S = 0.25


class Groups:
    """The members of one node: who of them sleeps, under whom, and what their logs end with."""

    def __init__(self) -> None:
        self.ends: dict[GroupId, tuple[NodeId, int, int]] = {}
        """Leader, term and last index as this node has them."""
        self.asleep: dict[GroupId, NodeId] = {}
        self.woken: list[tuple[GroupId, float | None]] = []
        self.with_others: set[GroupId] = set()
        """Led here, with a majority whoever is silent."""

    def sleep_following(
        self, group: GroupId, leader: NodeId, term: Term, last_index: Index
    ) -> bool:
        agrees = self.ends.get(group) == (leader, term, last_index)
        if agrees:
            self.asleep[group] = leader
        return agrees

    def sleep_on_without(self, group: GroupId, peer: NodeId) -> bool:
        return group in self.with_others

    def wake(self, group: GroupId, heard_at: float | None) -> None:
        if self.asleep.pop(group, None) is not None:
            self.woken.append((group, heard_at))


class Node:
    def __init__(self, name: NodeId, incarnation: int = 1) -> None:
        self.name = name
        self.groups = Groups()
        self.ledger = Ledger(incarnation, SILENCE_S, self.groups)

    def falls_asleep(self, group: GroupId, term: int, last_index: int, peers: list[NodeId]) -> None:
        """As the leader, with those of ``peers`` that are heard."""
        self.groups.asleep[group] = self.name
        heard = [peer for peer in peers if not self.ledger.is_silent(peer)]
        self.ledger.fell_asleep(group, Term(term), Index(last_index), peers, heard)

    def awakes(self, group: GroupId) -> None:
        """By a message or a proposal."""
        if self.groups.asleep.pop(group, None) is not None:
            self.ledger.woke(group)


def acquainted() -> tuple[Node, Node]:
    """A leader and a follower that have heard each other, at 0 s, and agree on both groups."""
    leader, follower = Node(L), Node(F)
    follower.groups.ends = {G: (L, 3, 10), H: (L, 3, 20)}
    pass_beat(leader, follower, 0.0)
    pass_beat(follower, leader, 0.0)
    return leader, follower


def pass_beat(source: Node, target: Node, now: float) -> Beat:
    beat = decode(encode(source.ledger.beat_for(target.name)))
    target.ledger.receive(source.name, beat, now)
    return beat


# -- the bytes -----------------------------------------------------------------------------------


def test_a_beat_is_read_as_it_was_written() -> None:
    beat = Beat(
        (1 << 64) - 1,
        5,
        2,
        99,
        (Fell(G, Term(3), Index(10)),),
        (Woke(H, 4), Woke(GroupId((1 << 64) - 1))),
        True,
        (7, 0.25),
    )
    assert decode(encode(beat)) == beat
    assert decode(memoryview(encode(Beat(0, 0)))) == Beat(0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: b"\1" + raw[1:],
        lambda raw: raw[:1] + b"\2" + raw[2:],
        lambda raw: raw[:38] + b"\1" + raw[39:],
        lambda raw: raw[:42] + b"\xff\xff\xff\xff" + raw[46:],
    ],
)
def test_what_is_no_beat_is_refused(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ProtocolError):
        decode(damage(encode(Beat(1, 1, 1, 1, (Fell(G, Term(1), Index(1)),), (Woke(H),)))))


def test_digests_tell_groups_and_terms_apart() -> None:
    mixes = {mix(group, term) for group in range(100) for term in range(100)}
    assert len(mixes) == 10_000
    assert all(0 <= value < 1 << 64 for value in mixes)


# -- the protocol --------------------------------------------------------------------------------


def test_a_follower_sleeps_where_its_log_ends_as_its_leaders() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    assert follower.groups.asleep == {G: L}
    assert pass_beat(follower, leader, 0.1).woke == ()
    assert G in leader.groups.asleep


def test_a_follower_that_disagrees_has_the_leader_wake_the_group() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 11, [F])
    leader.falls_asleep(H, 3, 20, [F])
    pass_beat(leader, follower, 0.1)
    assert follower.groups.asleep == {H: L}
    assert follower.ledger.beat_for(L).woke == (Woke(G, 1),)  # lost
    assert pass_beat(follower, leader, 0.2).woke == (Woke(G, 1),)
    assert leader.groups.asleep == {H: L}
    pass_beat(leader, follower, 0.3)
    assert pass_beat(follower, leader, 0.3).woke == ()


def test_a_follower_that_a_message_woke_has_the_leader_wake_the_group() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    follower.awakes(G)
    pass_beat(follower, leader, 0.2)
    assert leader.groups.woken == [(G, None)]


def test_a_late_word_that_a_group_woke_does_not_wake_it_once_more() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    leader.awakes(G)
    follower.awakes(G)  # by the leader's message
    late = follower.ledger.beat_for(L)
    leader.falls_asleep(G, 3, 10, [F])
    leader.ledger.receive(F, late, 0.2)
    assert G in leader.groups.asleep
    pass_beat(leader, follower, 0.3)
    pass_beat(follower, leader, 0.3)
    assert leader.groups.asleep[G] == follower.groups.asleep[G] == L


def test_a_lost_beat_shows_in_the_next_ones_digest_and_wakes_all_under_that_leader() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    leader.falls_asleep(H, 3, 20, [F])
    leader.ledger.beat_for(F)
    pass_beat(leader, follower, 0.2)
    assert follower.groups.asleep == {}
    assert pass_beat(follower, leader, 0.2).wake_all
    assert leader.groups.asleep == {}
    pass_beat(leader, follower, 0.3)
    assert not pass_beat(follower, leader, 0.3).wake_all


def test_a_group_that_woke_while_the_beat_with_that_was_lost_wakes_at_the_follower() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    leader.awakes(G)  # it stepped down, or its replica was closed
    leader.ledger.beat_for(F)
    assert follower.groups.asleep == {G: L}
    pass_beat(leader, follower, 0.2)
    assert follower.groups.asleep == {}


def test_an_old_or_doubled_beat_changes_nothing() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    first = leader.ledger.beat_for(F)
    leader.awakes(G)
    second = leader.ledger.beat_for(F)
    follower.ledger.receive(L, second, 0.1)
    follower.ledger.receive(L, first, 0.2)
    follower.ledger.receive(L, second, 0.3)
    assert follower.groups.asleep == {}
    assert follower.ledger.heard_at(L) == 0.1


def test_silence_wakes_what_sleeps_under_a_node_and_what_sleeps_with_it() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.5)
    for now in (0.5, 0.75, 1.0, 1.25, 1.5):
        follower.ledger.check(now, BEAT_S)
        leader.ledger.check(now, BEAT_S)
    assert follower.groups.asleep == {G: L}
    assert leader.groups.woken == [(G, None)]  # it heard the follower at 0 s for the last time
    follower.ledger.check(1.55, BEAT_S)
    assert follower.groups.woken == [(G, 0.5)]
    assert follower.ledger.is_silent(L)


def test_a_group_sleeps_on_with_the_majority_that_is_heard_and_wakes_when_the_other_calls() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    leader.groups.with_others = {G}
    pass_beat(leader, follower, 0.1)
    for now in (0.25, 0.5, 0.75, 1.0, 1.25):
        leader.ledger.check(now, BEAT_S)
    assert leader.groups.asleep == {G: L}
    pass_beat(leader, follower, 1.3)  # it hears, and is not heard: it has to find out by itself
    assert follower.groups.asleep == {}
    pass_beat(follower, leader, 1.4)
    assert leader.groups.asleep == {G: L}
    follower.ledger.call([G])
    pass_beat(follower, leader, 1.5)
    assert leader.groups.woken == [(G, None)]


def test_a_call_is_said_again_until_there_is_no_need_for_it() -> None:
    leader, follower = acquainted()
    follower.ledger.call([G])
    follower.ledger.beat_for(L)  # lost
    leader.ledger.fell_asleep(G, Term(3), Index(10), [F], [])
    leader.groups.asleep[G] = L
    pass_beat(follower, leader, 0.1)
    assert leader.groups.woken == [(G, None)]
    follower.ledger.call([])
    leader.ledger.fell_asleep(G, Term(3), Index(10), [F], [])
    leader.groups.asleep[G] = L
    pass_beat(follower, leader, 0.2)
    assert leader.groups.asleep == {G: L}


def test_who_is_no_member_calls_in_vain() -> None:
    leader, stranger = acquainted()
    leader.falls_asleep(G, 3, 10, [NodeId("other")])
    stranger.ledger.call([G])
    pass_beat(stranger, leader, 0.1)
    assert leader.groups.asleep == {G: L}


def test_a_late_call_does_not_wake_a_group_that_sleeps_with_the_caller() -> None:
    leader, follower = acquainted()
    pass_beat(leader, follower, 0.1)
    follower.ledger.call([G, H])
    late = follower.ledger.beat_for(L)
    leader.falls_asleep(G, 3, 10, [F])
    leader.ledger.receive(F, late, 0.2)
    assert leader.groups.asleep == {G: L}


def test_of_many_groups_only_a_few_wake_at_once() -> None:
    leader, follower = acquainted()
    for number in range(100, 100 + 3 * MAX_WAKES):
        group = GroupId(number)
        follower.groups.ends[group] = (L, 3, 1)
        leader.falls_asleep(group, 3, 1, [F])
    pass_beat(leader, follower, 0.0)
    counts = []
    for turn in range(9):
        follower.ledger.check(0.25 * turn, BEAT_S)
        counts.append(len(follower.groups.woken))
    assert counts == [0] * 5 + [MAX_WAKES, 2 * MAX_WAKES, 3 * MAX_WAKES, 3 * MAX_WAKES]
    assert {heard_at for _, heard_at in follower.groups.woken} == {0.0}


def test_many_groups_that_a_lost_beat_wakes_wake_once_and_then_all_sleep_again() -> None:
    leader, follower = acquainted()
    groups = [GroupId(number) for number in range(100, 100 + 10 * MAX_WAKES)]
    for group in groups:
        follower.groups.ends[group] = (L, 3, 1)
        leader.falls_asleep(group, 3, 1, [F])
    pass_beat(leader, follower, 0.0)
    groups.append(H)
    follower.groups.ends[H] = (L, 3, 1)
    leader.falls_asleep(H, 3, 1, [F])
    leader.ledger.beat_for(F)  # lost
    for turn in range(1, 31):
        now = turn * BEAT_S
        for node in (leader, follower):
            node.ledger.check(now, BEAT_S)
        for group in groups:
            if group not in leader.groups.asleep:
                follower.awakes(group)  # by a message, and the leader has its answer
                leader.falls_asleep(group, 3, 1, [F])
        pass_beat(leader, follower, now)
        pass_beat(follower, leader, now)
    assert set(leader.groups.asleep) == set(follower.groups.asleep) == set(groups)
    assert len(leader.groups.woken) <= len(groups)
    assert len(follower.groups.woken) <= len(groups)


def test_a_group_that_woke_before_its_turn_sleeps_on_when_that_comes() -> None:
    leader, follower = acquainted()
    many = [GroupId(number) for number in range(100, 100 + 2 * MAX_WAKES)]
    for group in many:
        follower.groups.ends[group] = (L, 3, 1)
        leader.falls_asleep(group, 3, 1, [F])
    pass_beat(leader, follower, 0.0)
    follower.ledger.receive(L, Beat(incarnation=9, sequence=0), 0.1)
    late = next(group for group in many if group in follower.groups.asleep)
    follower.awakes(late)
    fell = (Fell(late, Term(3), Index(1)),)
    follower.ledger.receive(L, Beat(9, 1, 1, mix(late, 3), fell), 0.2)
    follower.ledger.check(0.25, BEAT_S)
    assert late in follower.groups.asleep
    assert len(follower.groups.woken) == 2 * MAX_WAKES - 1


def test_two_nodes_wake_the_same_groups_in_another_order() -> None:
    orders = []
    for incarnation in (5, 6):
        node = Node(F, incarnation)
        node.groups.ends = {GroupId(number): (L, 3, 1) for number in range(10)}
        fell = tuple(Fell(GroupId(number), Term(3), Index(1)) for number in range(10))
        digest = 0
        for number in range(10):
            digest ^= mix(number, 3)
        node.ledger.receive(L, Beat(1, 0, 10, digest, fell), 0.0)
        node.ledger.check(5 * SILENCE_S, 5 * SILENCE_S)
        orders.append([group for group, _ in node.groups.woken])
    assert orders[0][0] == 5
    assert orders[1][0] == 6
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_group_sleeps_on_when_a_member_that_was_silent_is_back_until_that_calls() -> None:
    leader, follower = acquainted()
    for now in (0.25, 0.5, 0.75, 1.0, 1.25):
        leader.ledger.check(now, BEAT_S)
    leader.falls_asleep(G, 3, 10, [F])
    assert leader.ledger.beat_for(F).count == 0
    pass_beat(follower, leader, 2.0)
    assert leader.groups.asleep == {G: L}
    follower.ledger.call([G])
    pass_beat(follower, leader, 2.1)
    assert leader.groups.woken == [(G, None)]


def test_another_process_of_a_node_wakes_what_slept_under_the_one_before() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    follower.falls_asleep(H, 5, 1, [L])
    leader.groups.ends[H] = (F, 5, 1)
    pass_beat(leader, follower, 0.1)
    pass_beat(follower, leader, 0.1)
    assert leader.groups.asleep == {G: L, H: F}
    leader.ledger.receive(F, Beat(incarnation=2, sequence=0), 0.2)
    assert leader.groups.asleep == {}
    assert leader.groups.woken == [(H, 0.1), (G, None)]


def test_a_group_sleeps_on_while_another_process_of_a_member_begins() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    leader.groups.with_others = {G}
    pass_beat(leader, follower, 0.1)
    again = Node(F, incarnation=2)
    again.groups.ends = follower.groups.ends
    pass_beat(again, leader, 0.2)
    assert leader.groups.asleep == {G: L}
    pass_beat(leader, again, 0.3)
    assert not again.ledger.beat_for(L).wake_all
    again.ledger.call([G])  # open by now
    pass_beat(again, leader, 0.4)
    assert leader.groups.woken == [(G, None)]


def test_the_pause_of_this_process_is_nobody_elses_silence() -> None:
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    pass_beat(leader, follower, 0.1)
    follower.ledger.check(0.25, BEAT_S)
    follower.ledger.check(60.0, BEAT_S)
    assert follower.groups.asleep == {G: L}
    follower.ledger.check(60.25, BEAT_S)
    follower.ledger.check(60.5, BEAT_S)
    follower.ledger.check(60.75, BEAT_S)
    assert follower.groups.asleep == {}


def test_a_loop_that_is_always_late_notices_silence_nevertheless() -> None:
    _, follower = acquainted()
    for turn in range(20):
        follower.ledger.check(turn * 10 * BEAT_S, BEAT_S)
    assert follower.ledger.is_silent(L)


def test_what_a_beat_has_no_room_for_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorumlog.replication.sleep.ledger.MAX_ENTRIES", 1)
    leader, follower = acquainted()
    leader.falls_asleep(G, 3, 10, [F])
    leader.falls_asleep(H, 3, 20, [F])
    pass_beat(leader, follower, 0.1)
    assert follower.groups.asleep == {}
    pass_beat(follower, leader, 0.1)
    assert leader.groups.asleep == {}


def test_a_beat_is_far_smaller_than_a_message_may_be() -> None:
    largest = replace(
        Beat(0, 0),
        fell=(Fell(G, Term(1), Index(1)),) * MAX_ENTRIES,
        woke=(Woke(G),) * MAX_ENTRIES,
    )
    assert len(encode(largest)) < 1 << 20
    assert beat_module.decode(encode(largest)) == largest


class TwoNodes(RuleBasedStateMachine):
    """Both lead groups. Whatever was lost: once beats arrive again, who sleeps has a sleeping
    leader; and once one is dead, nobody sleeps under it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = {L: Node(L), F: Node(F)}
        self.wires: dict[NodeId, list[Beat]] = {L: [], F: []}
        self.terms: dict[GroupId, int] = {}
        self.leaders: dict[GroupId, NodeId] = {}

    @initialize()
    def elect(self) -> None:
        for group in range(6):
            self._elect(GroupId(group), (L, F)[group % 2])

    def _elect(self, group: GroupId, leader: NodeId) -> None:
        self.terms[group] = self.terms.get(group, 0) + 1
        self.leaders[group] = leader
        for node in self.nodes.values():
            node.awakes(group)
            node.groups.ends[group] = (leader, self.terms[group], 1)

    groups = st.integers(0, 5).map(GroupId)
    names = st.sampled_from((L, F))

    @rule(group=groups)
    def fall_asleep(self, group: GroupId) -> None:
        leader = self.nodes[self.leaders[group]]
        other = F if leader.name == L else L
        if group not in leader.groups.asleep and group in leader.groups.ends:
            leader.falls_asleep(group, self.terms[group], leader.groups.ends[group][2], [other])

    @rule(group=groups, name=names)
    def wake(self, group: GroupId, name: NodeId) -> None:
        self.nodes[name].awakes(group)

    @rule(group=groups, name=names)
    def change_leader(self, group: GroupId, name: NodeId) -> None:
        self._elect(group, name)

    @rule(group=groups)
    def append_without_the_follower(self, group: GroupId) -> None:
        leader = self.nodes[self.leaders[group]]
        if group in leader.groups.ends:
            leader.awakes(group)
            name, term, last_index = leader.groups.ends[group]
            leader.groups.ends[group] = (name, term, last_index + 1)

    @rule(name=names)
    def send(self, name: NodeId) -> None:
        other = F if name == L else L
        self.wires[other].append(self.nodes[name].ledger.beat_for(other))

    @rule(name=names, chance=st.randoms(use_true_random=False), keep=st.booleans())
    def deliver_any(self, name: NodeId, chance: random.Random, keep: bool) -> None:
        wire = self.wires[name]
        if wire:
            beat = chance.choice(wire)
            if not keep:
                wire.remove(beat)
            self.nodes[name].ledger.receive(F if name == L else L, beat, self.now)

    @rule(name=names)
    def lose_all(self, name: NodeId) -> None:
        self.wires[name].clear()

    @rule(seconds=st.sampled_from((0.1, 0.5, 3.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            node.ledger.check(self.now, BEAT_S)

    @rule(name=names)
    def restart(self, name: NodeId) -> None:
        node = Node(name, self.nodes[name].ledger._incarnation + 1)
        node.groups.ends = dict(self.nodes[name].groups.ends)
        self.nodes[name] = node
        for group, leader in self.leaders.items():
            if leader == name:  # it led and does not any more
                node.groups.ends.pop(group, None)

    @rule(name=names)
    def call(self, name: NodeId) -> None:
        """Who is awake here has not heard its leader for long."""
        node = self.nodes[name]
        node.ledger.call(
            [
                group
                for group, leader in self.leaders.items()
                if leader != name and group not in node.groups.asleep
            ]
        )

    @rule()
    def heal(self) -> None:
        """A few beats each way arrive: then nobody sleeps under a leader that does not, and no
        leader without who is awake."""
        for wire in self.wires.values():
            wire.clear()
        for _ in range(3):
            self.now += BEAT_S
            for name in self.nodes:
                self.call(name)
            for name, other in ((L, F), (F, L)):
                pass_beat(self.nodes[name], self.nodes[other], self.now)
        for node in self.nodes.values():
            for group, leader in node.groups.asleep.items():
                if leader != node.name:
                    assert self.nodes[leader].groups.asleep.get(group) == leader
                elif group in self.nodes[F if leader == L else L].groups.ends:
                    other = self.nodes[F if leader == L else L]
                    assert other.groups.asleep.get(group) == leader
            node.ledger.call([])

    @rule(dead=names)
    def die(self, dead: NodeId) -> None:
        """Nothing comes of it for long: nobody sleeps under it, nor with it as a majority."""
        other = self.nodes[F if dead == L else L]
        self.wires[other.name].clear()
        for _ in range(12):
            self.now += BEAT_S
            other.ledger.check(self.now, BEAT_S)
        assert not any(leader == dead for leader in other.groups.asleep.values())

    @invariant()
    def digests_are_of_what_is_there(self) -> None:
        for node in self.nodes.values():
            for peer in node.ledger._peers.values():
                for book in (peer.told, peer.announced):
                    digest = 0
                    for group, (term, _) in book.entries.items():
                        digest ^= mix(group, term)
                    assert book.digest == digest


TwoNodes.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwoNodes = TwoNodes.TestCase
