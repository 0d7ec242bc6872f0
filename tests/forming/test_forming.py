"""Clusters that form while everything breaks, from seeds, and what the simulation is worth."""

import pytest

from forming.mutants import MUTANTS
from forming.scenario import FAULTS, MAX_MACHINES, Scenario
from forming.simulation import Forming, run
from sim.campaign import SeedFailed
from sim.mutant import Mutant, hunt
from sim.other_processes import printed_by

SEEDS = 100
CHUNK = 10

QUICK_SEEDS = 10
"""Mutants that are found within so many seeds are hunted in every run of the tests."""


def _run(mutant: Mutant, seed: int) -> None:
    Forming(mutant.shape(Scenario.drawn(seed))).run()


def _named(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_one_set_of_nodes_forms_one_cluster_once_and_all_are_in_it(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        (77, "given up write goes on"),
        (26, "only the coordinator is asked"),
        (4, "a stranger ends a start"),
        (68, "what a start reads is not synced"),
        (11, "does not wait for its seeds"),
        (5, "another that expects one is waited for"),
    ],
)
def test_a_seed_that_found_a_bug_finds_it_again_and_nothing_without_it(
    seed: int, name: str
) -> None:
    bug = next(mutant for mutant in MUTANTS if mutant.name == name)
    _run(bug, seed)
    with bug.applied(), pytest.raises(SeedFailed):
        _run(bug, seed)


def test_seeds_draw_all_there_is() -> None:
    drawn = [Scenario.drawn(seed) for seed in range(1000)]
    for fault in FAULTS:
        assert 250 < sum(fault in each.faults for each in drawn) < 450
    assert {each.expect for each in drawn} == {1, 3, 5}
    sizes = {each.founders + each.joiners for each in drawn}
    assert sizes == {*range(3, MAX_MACHINES + 1)}
    assert all(each.founders + each.wipes < 2 * each.expect for each in drawn)
    for setting in ("rumours", "quick_gossip", "one_seed", "named", "stranger", "late_chain"):
        assert 30 < sum(getattr(each, setting) for each in drawn) < 970
    assert all(each.late in (0, each.late_expect, each.late_expect + 1) for each in drawn)
    assert {each.late for each in drawn} == {0, 1, 2, 3, 4}
    assert {each.eager for each in drawn} == {0, 1, 2, 3}


def test_clusters_form_nodes_are_lost_and_proposals_are_given_up() -> None:
    results = [run(seed) for seed in range(25)]
    assert sum(result.formed for result in results) > 18
    assert sum(result.blocked for result in results) < 4
    assert sum(result.joined for result in results) > 50
    assert sum(result.lost for result in results) > 8
    assert sum(result.aborted for result in results) > 3
    assert sum(result.faults for result in results) > 500
    assert sum(result.late for result in results) > 15


def test_a_run_does_not_depend_on_hashes_or_addresses() -> None:
    code = "from forming.simulation import run; print([run(seed).digest for seed in range(6)])"
    assert len(printed_by(code)) == 1


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.within <= QUICK_SEEDS], ids=_named)
def test_a_common_bug_is_found(mutant: Mutant) -> None:
    assert hunt(mutant, _run) is not None


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=_named)
def test_every_known_bug_is_found(mutant: Mutant) -> None:
    found = hunt(mutant, _run)
    assert found is not None
    print(f"{mutant.name}: seed {found[0]} of {mutant.within}: {found[1]}")
