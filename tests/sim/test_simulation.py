"""The whole cluster, from seeds. A failing seed prints the command that reproduces it."""

import pytest

from sim.other_processes import printed_by
from sim.simulation import Simulation, run
from sim.swarm import Swarm

SEEDS = 500
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_promise_is_broken_and_everything_goes_on_after_faults(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)


def test_where_the_topic_is_synced_by_interval_no_power_is_cut_before_the_end() -> None:
    weak = [swarm for swarm in map(Swarm.drawn, range(1000)) if swarm.fsync == "interval"]
    assert 100 < len(weak) < 200
    assert not any("power" in swarm.faults for swarm in weak)
    ambushed = [swarm.seed for swarm in weak if "ambush" in swarm.faults]
    killed = 0
    for seed in ambushed[:5]:
        lines: list[str] = []
        run(seed, echo=lines.append)
        healed = next(at for at, line in enumerate(lines) if "heals everything" in line)
        killed += sum("is killed" in line for line in lines[:healed])
        assert not any("loses power" in line for line in lines[:healed])
        assert sum("loses power" in line for line in lines[healed:]) >= 3
    assert killed > 0


def test_in_some_seeds_records_are_deleted_and_readers_find_them_gone() -> None:
    deleting = [swarm for swarm in map(Swarm.drawn, range(1000)) if swarm.deletes]
    assert 300 < len(deleting) < 420
    runs = [Simulation(swarm) for swarm in deleting[:8]]
    for each in runs:
        each.run()
    histories = [list(each.checker.histories.values()) for each in runs]
    assert sum(any(h.starts[-1].offset > 0 for h in found) for found in histories) > 4
    assert sum(any(h.starts[-1].free_index > 0 for h in found) for found in histories) > 2
    assert sum(each.workload.skipped for each in runs) > 0
    first_indexes = [
        replica.log.start_index
        for each in runs
        for node in each.nodes.values()
        for replica in (node.host.replicas.values() if node.host else ())
    ]
    assert sum(index > 1 for index in first_indexes) > 10


def test_one_seed_is_one_run() -> None:
    assert run(7) == run(7)
    assert run(7).digest != run(8).digest


def test_a_run_does_not_depend_on_hashes_or_addresses() -> None:
    code = "from sim.simulation import run; print([run(seed).digest for seed in (3, 4, 5)])"
    assert len(printed_by(code)) == 1


def test_in_some_seeds_the_cluster_replaces_nodes_that_are_away_for_long() -> None:
    replacing = [swarm for swarm in map(Swarm.drawn, range(1000)) if swarm.replaces]
    assert 30 < len(replacing) < 100
    found = 0
    for swarm in replacing[:20]:
        lines: list[str] = []
        Simulation(swarm, lines.append).run()
        found += any("failed_replica_replaced" in line for line in lines)
        if found == 2:
            break
    assert found == 2


def test_in_some_seeds_nodes_come_and_others_go_for_good_dead_or_alive() -> None:
    churning = [swarm for swarm in map(Swarm.drawn, range(1000)) if swarm.churns]
    assert 100 < len(churning) < 200
    runs = [Simulation(swarm) for swarm in churning[:6]]
    for each in runs:
        each.run()
    nodes = [node for each in runs for node in each.nodes.values()]
    gone = [node for node in nodes if node.gone]
    assert [node.node_id for node in gone if node.up] == []
    assert {node.node_id for node in gone} == {n for each in runs for n in each.churn.removed}
    assert sum(len(each.churn.joined) for each in runs) > 5
    assert any(node.buried for node in gone)
    assert any(not node.buried for node in gone)
    taken_over = [
        replica
        for each in runs
        for name in each.churn.joined
        if not each.nodes[name].gone and (host := each.nodes[name].host) is not None
        for replica in host.replicas.values()
        if replica.core.members.voters
    ]
    assert len(taken_over) > 5
