"""Whom a node dials."""

from types import SimpleNamespace
from typing import Any

from quorumlog.node.config import NodeConfig
from quorumlog.node.node import Node
from quorumlog.ports import Member, MemberState


def test_of_nodes_that_only_gossip_speaks_of_a_bounded_number_is_dialled() -> None:
    node = Node(NodeConfig())
    dialled: set[str] = set()
    claims = [("registered", MemberState.FAILED), ("gone", MemberState.FAILED)]
    claims += [(f"stranger-{number:04}", MemberState.ALIVE) for number in range(2000)]
    members = [
        Member(name, "127.0.0.1", 1, state, {"id": name, "cluster": "c"}) for name, state in claims
    ]
    fakes: dict[str, Any] = {
        "_peers": SimpleNamespace(cluster_id="c", set_peers=dialled.update),
        "_gossip": SimpleNamespace(members=lambda: members),
        "_bootstrap": SimpleNamespace(
            identity=SimpleNamespace(voters=[SimpleNamespace(node_id="seat")])
        ),
        "_controller": SimpleNamespace(
            metadata=SimpleNamespace(nodes=lambda: [SimpleNamespace(id="registered")])
        ),
    }
    vars(node).update(fakes)
    node._update_peers()
    assert {"seat", "registered", "stranger-0000"} <= dialled
    assert "gone" not in dialled
    assert len(dialled) == 2 + 256
