"""quorumlog: a replicated, append-only commit log.

``open`` a log in this process; talk to a cluster with ``Client`` or ``AsyncClient``; be a member
of one with ``Node``. What is not used is not imported: an embedded log needs no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quorumlog.errors import QuorumlogError
from quorumlog.types import Record, RecordData

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.sync import Client
    from quorumlog.embedded import EmbeddedLog, open
    from quorumlog.node.config import NodeConfig
    from quorumlog.node.node import Node

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "EmbeddedLog",
    "Node",
    "NodeConfig",
    "QuorumlogError",
    "Record",
    "RecordData",
    "__version__",
    "open",
]

_LAZY = {
    "AsyncClient": "quorumlog.client.client",
    "Client": "quorumlog.client.sync",
    "EmbeddedLog": "quorumlog.embedded",
    "Node": "quorumlog.node.node",
    "NodeConfig": "quorumlog.node.config",
    "open": "quorumlog.embedded",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'quorumlog' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
