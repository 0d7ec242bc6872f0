"""Members whose own messages wait: what they claim meanwhile must not be believed too soon."""

from collections.abc import Callable
from typing import Any

import pytest

from fakes.gossip_runs import FAILED, is_slow

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
        is_slow(20, 10)(network, nodes[3])
        network.run(30)
    suspected = {who for _, where, who, _ in network.trace if where == nodes[3].address[0]}
    assert len(suspected - {"n003"}) > 3
    wrongly = {who for _, _, who, state in network.trace if state is FAILED}
    assert wrongly == {"n003"}
