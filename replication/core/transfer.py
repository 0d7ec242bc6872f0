"""Leadership on its way to another voter (dissertation §3.10)."""

from dataclasses import dataclass

from quorumlog.types import NodeId


@dataclass(slots=True)
class Transfer:
    """Leadership on its way to ``target``; nothing is proposed meanwhile."""

    target: NodeId
    deadline: float
    """When this leader gives up and goes on itself."""
    ordered: bool = False
    """TimeoutNow has been sent."""
