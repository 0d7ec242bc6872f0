"""The bounds of SWIM and Lifeguard, on a few sizes; ``make gossip`` measures them at length."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from fakes.gossip_bounds import Bounds
from fakes.gossip_runs import FAILED, Endured, endure, formed, heal, kill_one, watch
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.output import Output, SendPacket
from quorumlog.discovery.wire.messages import Address, PacketMessage, Ping, Suspect
from quorumlog.discovery.wire.packet import decode_packet
from quorumlog.ports import MemberState

MakeNetwork = Callable[..., Any]
LAN = GossipConfig.lan()


def sent_by(network: Any, node: Any) -> list[tuple[Address, list[PacketMessage]]]:
    """What ``node`` sends from here on: address and messages."""
    sent: list[tuple[Address, list[PacketMessage]]] = []
    perform = network._perform

    def listen(source: Any, output: Output) -> None:
        if source is node and isinstance(output, SendPacket):
            sent.append((output.address, decode_packet(output.data)))
        perform(source, output)

    network._perform = listen
    return sent


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("size", [3, 10, 30])
def test_a_killed_member_is_detected_and_known_within_the_bounds(size: int, loss: float) -> None:
    bounds = Bounds.of(size, LAN)
    for seed in (1, 2):
        run = kill_one(size, LAN, loss, seed)
        assert run.broken == ()
        assert run.false_positives == 0
        assert run.suspected_s < 3 * bounds.mean_probe_s


def test_a_suspicion_that_all_confirm_is_as_short_as_it_may_be_and_no_shorter() -> None:
    bounds = Bounds.of(30, LAN)
    runs = [kill_one(30, LAN, 0.0, seed) for seed in (3, 4, 5)]
    lengths = [run.first_s - run.suspected_s for run in runs]
    # In one of twenty the second of those who confirm it comes too late.
    assert min(lengths) == pytest.approx(bounds.shortest_s, abs=0.05)


def test_a_suspicion_that_nobody_confirms_takes_the_longest_time(make_network: MakeNetwork) -> None:
    """One member is cut off from one other that can ask nobody else."""
    network = make_network(indirect_checks=1)
    nodes = network.start_many(12)
    network.run(60)
    bounds = Bounds.of(12, network.config)
    network.forget_trace()
    # It hears nothing of what anybody says, and all it says arrives: it alone is wrong.
    network.cut(nodes[1:], nodes[:1], both_ways=False)
    first = network.run_until(
        lambda: any(state is FAILED for _, _, state in nodes[0].changes), bounds.longest_s + 30
    )
    suspected_at, suspect = next(
        (at, who) for at, who, state in nodes[0].changes if state is MemberState.SUSPECT
    )
    failed_at = next(at for at, who, state in nodes[0].changes if (who, state) == (suspect, FAILED))
    assert first is not None
    assert failed_at - suspected_at == pytest.approx(bounds.longest_s, abs=0.1)


def test_every_member_is_probed_once_a_round_and_each_round_in_another_order(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(9)
    network.run(60)
    sent = sent_by(network, nodes[4])
    network.run(100)
    probes = [
        message.target for _, messages in sent for message in messages if isinstance(message, Ping)
    ]
    # The watch begins within a round: find where one ends.
    splits = (list(_rounds(probes[skip:], 8)) for skip in range(8))
    rounds = next((found for found in splits if all(len(set(one)) == 8 for one in found)), [])
    assert len(rounds) > 10
    assert len({tuple(one) for one in rounds}) == len(rounds)
    for one, other in pairwise(rounds):
        assert all(8 + other.index(name) - one.index(name) <= 15 for name in one)


def test_a_probe_tells_a_suspect_of_the_suspicion_also_when_the_news_is_spent(
    make_network: MakeNetwork,
) -> None:
    """Lifeguard's buddy system, §IV-C."""
    network = make_network(suspicion_multiplier=40)
    nodes = network.start_many(2)
    network.run(60)
    network.cut(nodes[1:], nodes[:1])
    assert network.run_until(lambda: nodes[0].states["n001"] is MemberState.SUSPECT, 30) is not None
    network.run(15)
    assert not nodes[0].core._outbox.has_news
    sent = sent_by(network, nodes[0])
    network.run(22)
    assert nodes[0].states["n001"] is MemberState.SUSPECT
    told = [
        any(isinstance(message, Suspect) and message.name == "n001" for message in messages)
        for address, messages in sent
        if address == nodes[1].address and isinstance(messages[0], Ping)
    ]
    assert len(told) >= 2
    assert all(told)


@pytest.mark.parametrize("stream_probes", [True, False], ids=["as shipped", "UDP alone"])
def test_nobody_healthy_is_declared_failed_in_a_quarter_of_an_hour_of_ten_percent_loss(
    stream_probes: bool,
) -> None:
    config = GossipConfig(stream_probes=stream_probes)
    endured = endure(3, config, 0.1, seed=1, hours=0.25)
    assert endured == Endured(0.25, [], endured.suspicions)
    # With probes over TCP a quarter of an hour may pass without one.
    assert stream_probes or endured.suspicions > 5


def test_without_loss_a_member_sends_as_much_among_many_as_among_few() -> None:
    few, many = (watch(formed(size, LAN).copy(1), 30.0) for size in (5, 25))
    assert many.packets == pytest.approx(few.packets, rel=0.02)
    assert many.packet_bytes == pytest.approx(few.packet_bytes, rel=0.02)
    assert many.packets == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("cut_s", [20.0, 120.0], ids=["suspected", "given up"])
def test_halves_find_each_other_within_the_time_between_two_calls(cut_s: float) -> None:
    assert heal(8, LAN, 0.1, seed=1, cut_s=cut_s) < LAN.reconnect_interval_s


def test_a_copy_of_a_network_goes_on_by_its_own_seed_and_leaves_the_original_alone() -> None:
    def future(seed: int) -> list[object]:
        network = formed(5, LAN).copy(seed)
        network.loss = network.stream_loss = 0.3
        network.run(60)
        return list(network.trace)

    before = formed(5, LAN).now
    assert future(1) == future(1)
    assert future(1) != future(2)
    assert formed(5, LAN).now == before


def _rounds(probes: list[str], length: int) -> Iterator[list[str]]:
    for start in range(0, len(probes) - length + 1, length):
        yield probes[start : start + length]
