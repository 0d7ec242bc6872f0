"""Measures gossip in virtual time against the size of the cluster, as rows of a table.

``PYTHONPATH=tests python -m fakes.gossip_table --sizes 3,5,10 --losses 0,0.1 --seeds 5``

By the definitions of the Lifeguard paper (§V): *first detection* is from the kill until the first
healthy member holds the killed one for failed, *full dissemination* until all do; a *false
positive* is a healthy member that another holds for failed.
"""

import argparse
import random
import statistics
from dataclasses import dataclass, replace

from fakes.gossip_network import GossipNetwork, Node
from quorumlog.discovery.config import GossipConfig
from quorumlog.ports import MemberState

SETTLE_S = 60.0
QUIET_S = 60.0
LIMIT_S = 180.0


@dataclass(frozen=True)
class Measured:
    """One run: seconds; per member and second; per member and hour."""

    first_s: float
    all_s: float
    packets_s: float
    bytes_s: float
    suspicions_h: float
    false_positives: int


def measure(size: int, loss: float, seed: int) -> Measured:
    """Let ``size`` members settle, watch them for a while, then kill one."""
    network = GossipNetwork(seed, replace(GossipConfig.lan(), stream_probes=False), loss)
    nodes = network.start_many(size)
    network.run(SETTLE_S)
    for node in nodes:
        node.changes.clear()
        node.sent_packets = node.sent_bytes = 0
    network.run(QUIET_S)
    member_seconds = size * QUIET_S
    packets = sum(node.sent_packets for node in nodes)
    sent_bytes = sum(node.sent_bytes for node in nodes)
    suspicions = count(nodes, MemberState.SUSPECT)
    victim = random.Random(seed).choice(nodes)
    (name,) = (m.name for m in victim.core.members() if m.address == victim.address[0])
    victim.running = False
    others = [node for node in nodes if node is not victim]
    killed_at = network.now

    def knows(node: Node) -> bool:
        return any(
            at >= killed_at and (who, state) == (name, MemberState.FAILED)
            for at, who, state in reversed(node.changes)
        )

    first = network.run_until(lambda: any(map(knows, others)), LIMIT_S)
    rest = network.run_until(lambda: all(map(knows, others)), LIMIT_S)
    assert first is not None
    assert rest is not None
    false_positives = sum(
        who != name and state is MemberState.FAILED
        for node in others
        for _, who, state in node.changes
    )
    return Measured(
        first,
        first + rest,
        packets / member_seconds,
        sent_bytes / member_seconds,
        suspicions * 3600 / member_seconds / size,
        false_positives,
    )


def count(nodes: list[Node], wanted: MemberState) -> int:
    return sum(state is wanted for node in nodes for _, _, state in node.changes)


def row(size: int, loss: float, runs: list[Measured]) -> str:
    first, everybody = [run.first_s for run in runs], [run.all_s for run in runs]
    cells = [
        f"{size}",
        f"{loss:.0%}",
        f"{len(runs)}",
        f"{statistics.median(first):.1f} / {max(first):.1f} s",
        f"{statistics.median(everybody):.1f} / {max(everybody):.1f} s",
        f"{sum(run.false_positives for run in runs)}",
        f"{statistics.mean(run.suspicions_h for run in runs):.1f}",
        f"{statistics.mean(run.packets_s for run in runs):.1f}",
        f"{statistics.mean(run.bytes_s for run in runs):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="3,5,10,20")
    parser.add_argument("--losses", default="0,0.1,0.3")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for size in map(int, options.sizes.split(",")):
        for loss in map(float, options.losses.split(",")):
            runs = [measure(size, loss, seed) for seed in range(1, options.seeds + 1)]
            print(row(size, loss, runs), flush=True)


if __name__ == "__main__":
    main()
