"""Faults that come and go, one-way cuts, and Serf's layer among many, in virtual time."""

from collections.abc import Callable
from typing import Any

import pytest

from quorumlog.discovery.core.output import EventReceived, Output
from quorumlog.ports import MemberState

MakeNetwork = Callable[..., Any]


def names(count: int) -> set[str]:
    return {f"n{i:03}" for i in range(count)}


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_link_that_is_cut_in_one_direction_fails_nobody(
    make_network: MakeNetwork, loss: float
) -> None:
    network = make_network(loss=loss)
    nodes = network.start_many(6)
    network.run(10)
    network.cut(nodes[:1], nodes[1:3], both_ways=False)
    network.run(300)
    assert [entry for entry in network.trace if entry[3] is MemberState.FAILED] == []
    assert network.all_know(names(6))


def test_a_member_that_hears_and_is_not_heard_fails_and_comes_back(
    make_network: MakeNetwork,
) -> None:
    """Whoever is silent to everybody counts as failed, whatever it hears."""
    network = make_network()
    nodes = network.start_many(6)
    network.run(10)
    network.cut(nodes[:1], nodes[1:], both_ways=False)
    failed = MemberState.FAILED
    assert network.run_until(lambda: all(n.state_of("n000") is failed for n in nodes[1:]), 60)
    network.heal()
    assert network.run_until(lambda: network.all_agree(names(6)), 30) is not None


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flapping_member_takes_nobody_with_it(make_network: MakeNetwork, seed: int) -> None:
    """It stands still for twenty seconds, runs for ten, again and again."""
    network = make_network(seed=seed, loss=0.05)
    nodes = network.start_many(8)
    network.run(10)
    for _ in range(6):
        network.pause(nodes[3], 20)
        network.run(30)
    wrongly = {who for _, _, who, state in network.trace if state is MemberState.FAILED}
    assert wrongly == {"n003"}
    assert network.run_until(lambda: network.all_agree(names(8)), 30) is not None


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_an_event_reaches_everybody_once(make_network: MakeNetwork, loss: float) -> None:
    network = make_network(loss=loss)
    nodes = network.start_many(12)
    network.run(20)
    heard: dict[str, list[Output]] = {}
    perform = network._perform

    def listen(node: Any, output: Output) -> None:
        if isinstance(output, EventReceived):
            heard.setdefault(node.address[0], []).append(output)
        perform(node, output)

    network._perform = listen
    network.do(nodes[7], lambda core: core.send_event("deploy", b"v2", network.now))
    assert network.run_until(lambda: len(heard) == 12, 30) is not None
    network.run(20)
    assert {len(events) for events in heard.values()} == {1}


def test_the_intent_to_leave_makes_a_crash_on_the_way_out_a_leave(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(5)
    network.run(30)
    network.do(nodes[2], lambda core: core.leave(network.now))
    network.run(0.15)
    nodes[2].running = False
    network.run(60)
    others = [node for node in nodes if node is not nodes[2]]
    assert {node.state_of("n002") for node in others} == {MemberState.LEFT}
    assert not any(entry[2:] == ("n002", MemberState.FAILED) for entry in network.trace)


def test_what_was_lost_as_often_as_it_was_sent_is_heard_of_in_an_exchange_of_states(
    make_network: MakeNetwork,
) -> None:
    network = make_network(retransmit_multiplier=1)
    nodes = network.start_many(5)
    network.run(60)
    network.loss = 1.0
    network.do(nodes[2], lambda core: core.set_tags({"id": "n002", "rpc": "new"}, network.now))
    network.run(0.45)
    network.loss = 0.0
    assert not nodes[2].core._outbox.has_news

    def somebody_knows() -> bool:
        others = [node for node in nodes if node is not nodes[2]]
        known = [member for node in others for member in node.core.members()]
        return any(member.tags.get("rpc") == "new" for member in known)

    # It exchanges its own with one of them by then; from there on it is news again.
    assert network.run_until(somebody_knows, network.config.push_pull_interval_s + 1) is not None
