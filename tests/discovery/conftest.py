"""What the tests of gossip share."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes.gossip_network import GossipNetwork
from quorumlog.discovery.config import GossipConfig


@pytest.fixture
def make_network() -> Callable[..., GossipNetwork]:
    """``make_network(seed=…, loss=…, **settings)``: LAN settings, without stream probes."""

    def make(seed: int = 1, loss: float = 0.0, **settings: object) -> GossipNetwork:
        config = replace(GossipConfig.lan(), **{"stream_probes": False} | settings)
        return GossipNetwork(seed, config, loss)

    return make
