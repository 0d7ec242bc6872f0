"""What the tests of gossip share."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import uvloop

from fakes.gossip_network import GossipNetwork
from quorumlog.discovery.config import GossipConfig

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> LoopFactories:
    """asyncio's own; uvloop's as well for what is marked ``both_loops``."""
    loops: LoopFactories = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops") is not None:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def make_network() -> Callable[..., GossipNetwork]:
    """``make_network(seed=…, loss=…, **settings)``: LAN settings, without stream probes."""

    def make(seed: int = 1, loss: float = 0.0, **settings: object) -> GossipNetwork:
        config = replace(GossipConfig.lan(), **{"stream_probes": False} | settings)
        return GossipNetwork(seed, config, loss)

    return make
