"""Members whose own messages wait: what they claim meanwhile must not be believed too soon."""

from collections.abc import Callable
from typing import Any

import pytest

from fakes.gossip_runs import FAILED, IsSlow

MakeNetwork = Callable[..., Any]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_slow_member_suspects_is_confirmed_by_nobody_who_only_heard_of_it(
    make_network: MakeNetwork, seed: int
) -> None:
    """It suspects three of nine; the longest suspicion, 24 s, is longer than it is slow."""
    network = make_network(seed=seed, loss=0.1, stream_probes=True)
    nodes = network.start_many(10)
    network.run(60)
    for _ in range(3):
        IsSlow(20, 10)(network, nodes[3])
        network.run(30)
    suspected = {who for _, where, who, _ in network.trace if where == nodes[3].address[0]}
    assert len(suspected - {"n003"}) > 3
    wrongly = {who for _, _, who, state in network.trace if state is FAILED}
    assert wrongly == {"n003"}


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_member_of_three_gives_nobody_up_and_a_killed_one_is_found_as_soon_as_ever(
    make_network: MakeNetwork, seed: int
) -> None:
    """Nobody is there to confirm what it suspects, so it believes its own health."""
    network = make_network(seed=seed, stream_probes=True)
    nodes = network.start_many(3)
    network.run(60)
    for _ in range(4):
        IsSlow(20, 10)(network, nodes[1])
        network.run(30)
    assert {who for _, _, who, state in network.trace if state is FAILED} <= {"n001"}
    network.run(60)
    nodes[1].running = False
    assert network.run_until(lambda: nodes[0].states["n001"] is FAILED, 9) is not None
