"""What the node's settings mean for gossip."""

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.node.config import NodeConfig


def gossip_config(config: NodeConfig) -> GossipConfig:
    return GossipConfig(
        label=config.gossip_label,
        verify_incoming=config.gossip_verify == "both",
        verify_outgoing=config.gossip_verify != "none",
    )


def load_gossip_keys(config: NodeConfig) -> GossipKeys | None:
    """None where gossip is in clear. Reads a file; raises ``ConfigError`` for a bad one."""
    return GossipKeys.load(config.gossip_keys) if config.gossip_keys else None
