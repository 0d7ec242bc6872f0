"""quorumlog: a replicated, append-only commit log.

``open`` a log in this process (``open_async`` for asyncio), or ``follow`` one that another process
has open; talk to a cluster with ``Client`` or ``AsyncClient``; be a member of one with ``Node``;
have a state machine of your own replicated with ``Replicated``.
What is not used is not imported: an embedded log needs no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quorumlog.errors import QuorumlogError, Refused
from quorumlog.types import Record, RecordData

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.sync import Client
    from quorumlog.embedded import EmbeddedLog, open
    from quorumlog.embedded.aio import AsyncLog
    from quorumlog.embedded.aio_opening import open_async
    from quorumlog.embedded.following import LogFollower, follow
    from quorumlog.log.cleaning.compaction_plan import Compaction
    from quorumlog.log.cleaning.retention import Retention
    from quorumlog.log.key_ring import KeyRing
    from quorumlog.node.config import NodeConfig
    from quorumlog.node.node import Node
    from quorumlog.replicated.config import ReplicatedConfig
    from quorumlog.replicated.group import Group
    from quorumlog.replicated.in_memory import InMemoryGroup
    from quorumlog.replicated.machine import Command, Machine
    from quorumlog.replicated.replicated import Replicated

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncLog",
    "Client",
    "Command",
    "Compaction",
    "EmbeddedLog",
    "Group",
    "InMemoryGroup",
    "KeyRing",
    "LogFollower",
    "Machine",
    "Node",
    "NodeConfig",
    "QuorumlogError",
    "Record",
    "RecordData",
    "Refused",
    "Replicated",
    "ReplicatedConfig",
    "Retention",
    "__version__",
    "follow",
    "open",
    "open_async",
]

_LAZY = {
    "AsyncClient": "quorumlog.client.client",
    "AsyncLog": "quorumlog.embedded.aio",
    "Client": "quorumlog.client.sync",
    "Command": "quorumlog.replicated.machine",
    "Compaction": "quorumlog.log.cleaning.compaction_plan",
    "EmbeddedLog": "quorumlog.embedded",
    "Group": "quorumlog.replicated.group",
    "InMemoryGroup": "quorumlog.replicated.in_memory",
    "KeyRing": "quorumlog.log.key_ring",
    "LogFollower": "quorumlog.embedded.following",
    "Machine": "quorumlog.replicated.machine",
    "Node": "quorumlog.node.node",
    "NodeConfig": "quorumlog.node.config",
    "Replicated": "quorumlog.replicated.replicated",
    "ReplicatedConfig": "quorumlog.replicated.config",
    "Retention": "quorumlog.log.cleaning.retention",
    "follow": "quorumlog.embedded.following",
    "open": "quorumlog.embedded",
    "open_async": "quorumlog.embedded.aio_opening",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'quorumlog' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
