"""The gossip core among its like: joins, failures, refutation, leaving, returning, partitions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.gossip_bounds import Bounds
from fakes.gossip_runs import every, some
from quorumlog.discovery.config import GossipConfig
from quorumlog.ports import MemberState

MakeNetwork = Callable[..., Any]
LAN = GossipConfig.lan()


def names(count: int) -> set[str]:
    return {f"n{i:03}" for i in range(count)}


@pytest.mark.parametrize(
    ("count", "loss", "limit_s"),
    [(3, 0.0, 1.0), (3, 0.2, 2.0), (10, 0.0, 1.0), (10, 0.2, 2.0), (50, 0.0, 2.0), (50, 0.2, 3.0)],
)
def test_all_members_find_each_other_from_one_seed(
    make_network: MakeNetwork, count: int, loss: float, limit_s: float
) -> None:
    network = make_network(loss=loss)
    network.start_many(count)
    assert network.run_until(lambda: network.all_know(names(count)), limit_s) is not None


def test_a_node_finds_a_seed_that_starts_later(make_network: MakeNetwork) -> None:
    network = make_network()
    seed = network.start("seed")
    seed.running = False
    early = network.start("early", seeds=[seed])
    network.run(20)
    assert early.alive() == {"early"}
    network.resume(seed)
    assert network.run_until(lambda: early.alive() == {"early", "seed"}, 3) is not None


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_killed_member_is_failed_everywhere_within_the_bound(
    make_network: MakeNetwork, count: int, loss: float
) -> None:
    network = make_network(loss=loss, seed=count)
    nodes = network.start_many(count)
    network.run(20)
    victim = nodes[1]
    network.run_until(lambda: not some(nodes, victim, MemberState.SUSPECT), 60)
    victim.running = False
    survivors = [node for node in nodes if node is not victim]
    bounds = Bounds.of(count, network.config)
    # Who doubts itself probes more slowly, and may come to doubt itself once more.
    doubt = max(node.core.health_score for node in survivors) + (loss > 0)
    longest_s = bounds.longest_probe_s * (1 + doubt) + bounds.longest_s + bounds.spread_s
    elapsed = network.run_until(lambda: every(survivors, victim, MemberState.FAILED), longest_s)
    assert elapsed is not None
    assert elapsed >= bounds.shortest_s
    network.run(10)
    assert network.all_know(names(count) - {"n001"})


@pytest.mark.parametrize("seed", range(3))
def test_no_healthy_member_is_declared_failed_at_ten_percent_loss(
    make_network: MakeNetwork, seed: int
) -> None:
    network = make_network(seed=seed, loss=0.1)
    network.start_many(10)
    network.run(1500)
    assert [entry for entry in network.trace if entry[3] is MemberState.FAILED] == []
    assert network.all_know(names(10))
    # The test would prove nothing if loss never led to a suspicion that had to be refuted.
    assert any(entry[3] is MemberState.SUSPECT for entry in network.trace)


def test_a_member_cut_off_from_one_other_is_kept_by_indirect_probes(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(5)
    network.run(5)
    network.cut(nodes[:1], nodes[1:2])
    network.run(120)
    assert network.trace[-1][0] < 6
    assert network.all_agree(names(5))


def test_without_indirect_probes_such_a_member_is_suspected(make_network: MakeNetwork) -> None:
    """The twin of the test before: shows that the cut is one that matters."""
    network = make_network(indirect_checks=1)
    nodes = network.start_many(2)
    network.run(5)
    network.cut(nodes[:1], nodes[1:])
    network.run(30)
    assert nodes[0].state_of("n001") is MemberState.FAILED


def test_stream_probes_keep_a_member_whose_packets_are_all_lost(make_network: MakeNetwork) -> None:
    network = make_network(stream_probes=True)
    network.start_many(3)
    network.run(5)
    network.loss = 1.0
    network.run(60)
    assert network.all_agree(names(3))
    assert [entry for entry in network.trace if entry[3] is not MemberState.ALIVE] == []


def test_a_suspected_member_refutes(make_network: MakeNetwork) -> None:
    network = make_network()
    nodes = network.start_many(5)
    network.run(5)
    network.cut(nodes[4:], nodes[:4])
    suspected = network.run_until(lambda: nodes[0].state_of("n004") is MemberState.SUSPECT, 30)
    assert suspected is not None
    network.heal()
    assert network.run_until(lambda: network.all_agree(names(5)), 5) is not None
    network.run(30)
    assert [entry for entry in network.trace if entry[3] is MemberState.FAILED] == []


def test_a_paused_process_neither_accuses_the_others_nor_stays_failed(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(5)
    network.run(10)
    network.pause(nodes[2], 60)
    network.run(59)
    assert nodes[0].state_of("n002") is MemberState.FAILED
    network.run(30)
    assert network.all_agree(names(5))
    accused = {name for _, name, state in nodes[2].changes if state is not MemberState.ALIVE}
    assert accused <= {"n002"}


def test_a_leaving_member_has_left_everywhere_at_once(make_network: MakeNetwork) -> None:
    network = make_network(loss=0.1)
    nodes = network.start_many(10)
    network.run(5)
    network.do(nodes[3], lambda core: core.leave(network.now))
    assert network.run_until(lambda: nodes[3].core.leave_is_spread, 3) is not None
    nodes[3].running = False
    others = nodes[:3] + nodes[4:]
    assert (
        network.run_until(
            lambda: all(node.state_of("n003") is MemberState.LEFT for node in others), 3
        )
        is not None
    )
    network.run(60)
    assert all(node.state_of("n003") is MemberState.LEFT for node in others)
    assert not any(state is MemberState.FAILED for *_, state in network.trace)


def test_the_last_member_leaves_without_waiting(make_network: MakeNetwork) -> None:
    network = make_network()
    node = network.start("only")
    network.run(3)
    network.do(node, lambda core: core.leave(network.now))
    assert network.run_until(lambda: node.core.leave_is_spread, 0.5) is not None


@pytest.mark.parametrize("waited_s", [0.0, 3.0, 60.0], ids=["at once", "suspected", "failed"])
def test_a_restarted_node_under_a_new_address_is_found_within_two_seconds(
    make_network: MakeNetwork, waited_s: float
) -> None:
    network = make_network(loss=0.1)
    nodes = network.start_many(5)
    network.run(10)
    nodes[2].running = False
    network.run(waited_s)
    again = network.start("n002", seeds=[nodes[4]])
    others = [nodes[0], nodes[1], nodes[3], nodes[4]]

    def found() -> bool:
        return all(_address(node, "n002") == again.address[0] for node in others)

    assert network.run_until(found, 2) is not None
    network.run(60)
    assert found()
    assert network.all_know(names(5))
    assert all(node.conflicts == [] for node in network.nodes.values())


def test_a_node_that_left_comes_back_under_a_new_address(make_network: MakeNetwork) -> None:
    network = make_network()
    nodes = network.start_many(3)
    network.run(5)
    network.do(nodes[1], lambda core: core.leave(network.now))
    network.run(2)
    nodes[1].running = False
    again = network.start("n001", seeds=[nodes[0]], tags={"id": "another"})
    assert network.run_until(lambda: _address(nodes[2], "n001") == again.address[0], 2) is not None
    network.run(1)
    assert network.all_agree(names(3))


def test_a_new_node_takes_a_failed_ones_name_only_once_it_has_failed(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(5)
    network.run(10)
    nodes[2].running = False
    wiped = network.start("n002", seeds=[nodes[0]], tags={"id": "wiped"})
    network.run(1)
    assert _address(nodes[0], "n002") == nodes[2].address[0]
    assert any(conflict.ours for conflict in wiped.conflicts)
    others = [nodes[0], nodes[1], nodes[3], nodes[4]]
    taken = network.run_until(
        lambda: all(_address(node, "n002") == wiped.address[0] for node in others), 60
    )
    assert taken is not None
    assert taken > 3
    network.run(30)
    assert network.all_agree(names(5))


def test_a_second_live_node_of_the_same_name_changes_nothing_and_is_told(
    make_network: MakeNetwork,
) -> None:
    network = make_network()
    nodes = network.start_many(4)
    network.run(10)
    second = network.start("n002", seeds=[nodes[0]], tags={"id": "someone else"})
    network.run(120)
    for node in nodes:
        assert _address(node, "n002") == nodes[2].address[0]
        assert node.state_of("n002") is MemberState.ALIVE
    assert any(conflict.ours for conflict in second.conflicts)
    assert {conflict.claimant for conflict in nodes[0].conflicts} == {second.address}


def test_a_copied_identity_is_reported_by_both_who_have_it(make_network: MakeNetwork) -> None:
    network = make_network()
    nodes = network.start_many(3)
    network.run(10)
    copy = network.start("n001", seeds=[nodes[0]])
    network.run(300)
    assert any(conflict.ours for conflict in copy.conflicts)
    assert any(conflict.ours for conflict in nodes[1].conflicts)


@pytest.mark.parametrize("split", [1, 3])
def test_a_healed_partition_converges(make_network: MakeNetwork, split: int) -> None:
    network = make_network(seed=split)
    nodes = network.start_many(6)
    network.run(10)
    network.cut(nodes[:split], nodes[split:])
    network.run(180)
    assert nodes[0].alive() == names(split)
    assert nodes[5].alive() == names(6) - names(split)
    network.heal()
    assert network.run_until(lambda: network.all_agree(names(6)), 30) is not None
    network.run(60)
    assert network.all_agree(names(6))


def test_tags_spread_and_reach_those_who_join_later(make_network: MakeNetwork) -> None:
    network = make_network(loss=0.1)
    nodes = network.start_many(10)
    network.run(5)
    network.do(nodes[7], lambda core: core.set_tags({"id": "n007", "rpc": "new"}, network.now))
    others = nodes[:7] + nodes[8:]
    assert (
        network.run_until(
            lambda: all(_tags(node, "n007").get("rpc") == "new" for node in others), 3
        )
        is not None
    )
    late = network.start("late", seeds=[nodes[0]])
    network.run(2)
    assert _tags(late, "n007") == {"id": "n007", "rpc": "new"}


def test_failed_members_are_forgotten_in_the_end(make_network: MakeNetwork) -> None:
    network = make_network(forget_after_s=120.0)
    nodes = network.start_many(3)
    network.run(5)
    nodes[2].running = False
    network.run(60)
    assert nodes[0].state_of("n002") is MemberState.FAILED
    network.run(240)
    assert nodes[0].state_of("n002") is None
    assert nodes[1].state_of("n002") is None


def test_load_per_member_does_not_grow_with_the_cluster(make_network: MakeNetwork) -> None:
    def packets_per_second(count: int) -> float:
        network = make_network()
        nodes = network.start_many(count)
        network.run(20)
        before = sum(node.sent_packets for node in nodes)
        network.run(60)
        return (sum(node.sent_packets for node in nodes) - before) / 60 / count

    assert packets_per_second(40) <= 1.1 * packets_per_second(5) < 4


def test_no_more_members_than_the_bound_are_remembered(make_network: MakeNetwork) -> None:
    network = make_network(max_members=4)
    nodes = network.start_many(8)
    network.run(30)
    assert all(len(node.core.members()) <= 4 for node in nodes)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_trace(make_network: MakeNetwork, seed: int) -> None:
    def trace(of_seed: int) -> list[object]:
        network = make_network(seed=of_seed, loss=0.2)
        nodes = network.start_many(6)
        network.run(30)
        nodes[3].running = False
        network.run(30)
        return list(network.trace)

    assert trace(seed) == trace(seed)
    assert trace(seed) != trace(seed + 10)


def test_settings_for_one_machine_find_a_failure_sooner(make_network: MakeNetwork) -> None:
    local = replace(GossipConfig.local(), stream_probes=False)
    network = make_network()
    network.config = local
    nodes = network.start_many(3)
    network.run(5)
    nodes[1].running = False
    elapsed = network.run_until(
        lambda: nodes[0].state_of("n001") is nodes[2].state_of("n001") is MemberState.FAILED, 10
    )
    assert elapsed is not None
    assert elapsed < 4


def _address(node: Any, name: str) -> str | None:
    return next((m.address for m in node.core.members() if m.name == name), None)


def _tags(node: Any, name: str) -> dict[str, str]:
    return next((m.tags for m in node.core.members() if m.name == name), {})


@pytest.mark.parametrize("seed", range(6))
def test_once_a_second_process_of_its_identity_is_gone_a_member_is_back_at_its_own_address(
    make_network: MakeNetwork, seed: int
) -> None:
    network = make_network(seed=seed)
    nodes = network.start_many(3)
    network.run(20)
    second = network.start("n001", seeds=nodes[:1])
    assert network.run_until(lambda: second.conflicts, 30) is not None
    second.running = False
    others = (nodes[0], nodes[2])
    back_s = network.run_until(
        lambda: all(each.address_of("n001") == nodes[1].address for each in others), 30
    )
    assert back_s is not None
    assert back_s < 1
