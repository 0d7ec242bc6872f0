"""What SWIM and Lifeguard promise of a detection, for one size and configuration."""

import math
from dataclasses import dataclass

from quorumlog.discovery.config import GossipConfig

TOLERANCE_S = 0.05
"""Two packets on the way: the end of a suspicion, heard of elsewhere."""


@dataclass(frozen=True)
class Bounds:
    """Seconds, for a member that is killed among ``size``.

    ``mean_probe_s``: until some probe of it fails, on average (SWIM §3.1: e/(e - 1) periods until
    somebody chooses it, and the period of that probe). ``longest_probe_s``: until everybody's did
    (SWIM §4.3: it is the last of one round and of the next). ``shortest_s``, ``longest_s``: from
    the first suspicion to the first failure (Lifeguard §IV-B); of three members one that doubts
    itself waits as long as one of many whom nobody confirms. ``spread_s``: from there until
    everybody knows, as long as the news is sent at all (SWIM §4.1).
    """

    mean_probe_s: float
    longest_probe_s: float
    shortest_s: float
    longest_s: float
    spread_s: float

    @staticmethod
    def of(size: int, config: GossipConfig) -> "Bounds":
        period_s = config.probe_interval_s
        shortest_s = config.suspicion_multiplier * max(1.0, math.log10(size)) * period_s
        accusers = config.suspicion_multiplier - 2
        may_last = size > 2 and accusers > 0
        rounds = config.retransmit_multiplier * math.ceil(math.log(size + 1))
        return Bounds(
            mean_probe_s=(math.e / (math.e - 1) + 1) * period_s,
            longest_probe_s=2 * size * period_s,
            shortest_s=shortest_s,
            longest_s=shortest_s * (config.suspicion_max_multiplier if may_last else 1),
            spread_s=rounds * config.gossip_interval_s,
        )

    def broken_by(self, suspected_s: float, first_s: float, all_s: float) -> list[str]:
        """Which of them times since the kill do not keep."""
        suspicion_s = first_s - suspected_s
        kept = {
            "probe": suspected_s <= self.longest_probe_s + TOLERANCE_S,
            "shortest suspicion": suspicion_s >= self.shortest_s - TOLERANCE_S,
            "longest suspicion": suspicion_s <= self.longest_s + TOLERANCE_S,
            "spread": all_s - first_s <= self.spread_s + TOLERANCE_S,
        }
        return [name for name, is_kept in kept.items() if not is_kept]
