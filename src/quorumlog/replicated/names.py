"""Nodes of a group have names, which the program gives, and ids, which are born with the data
directory: ``<name>.<32 hexadecimal digits>``. A node with another directory is another node."""

import re
from collections.abc import Mapping
from typing import Final

from quorumlog.errors import ConfigError
from quorumlog.node.config import parse_address
from quorumlog.types import NodeId

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def id_prefix(name: str) -> str:
    return f"{name}."


def name_of(node_id: NodeId) -> str:
    return node_id.rpartition(".")[0]


def check_peers(node: str, peers: Mapping[str, str]) -> None:
    """Raise ConfigError unless ``peers`` are names and addresses, ``node`` one of them."""
    if node not in peers:
        raise ConfigError(f"node is {node!r}, and peers has only {', '.join(sorted(peers))}")
    for name, address in peers.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name for a node: write 1 to 64 letters, digits, '-' and '_', "
                "a letter or digit first"
            )
        parse_address(f"the address of {name}", address)
    if len(set(peers.values())) != len(peers):
        raise ConfigError("two of peers have the same address")
