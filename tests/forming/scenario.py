"""What a seed stands for: who is to form a cluster, what they know of each other, what happens.

Swarm testing, as in :mod:`sim.swarm`: every seed leaves most kinds of trouble out.
"""

import random
from dataclasses import dataclass
from typing import Final

from sim.network import LinkQuality
from sim.swarm import rng_for
from sim.worker import WorkerSpeed

FAULTS: Final = (
    "kill",
    "power",
    "all_power",
    "pause",
    "isolate",
    "partition",
    "one_way",
    "reset",
    "twice",
    "io_error",
    "disk_full",
    "wipe",
    "bury",
    "ambush",
    "address_taken",
)

MAX_MACHINES: Final = 7

_STRANGER_SHARE: Final = 0.06
"""Of the seeds, those in which a node of another cluster comes into the same gossip."""

_LATE_SHARE: Final = 0.4
"""Of the seeds, those in which nodes that expect some come when there is a cluster."""


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int
    expect: int
    founders: int
    """Machines that expect ``expect``; fewer than twice as many, wiped ones counted again: two
    sets that can form a cluster each then have a node in common."""
    joiners: int
    """Machines that only join."""
    eager: int
    """So many of these expect 1; they are given others to join, so they form nothing."""
    late: int
    """Machines that are started for the first time when there is a cluster, and all is well."""
    late_expect: int
    """What these expect, all of them; enough to form a cluster if they did not know better."""
    late_chain: bool
    """Of those the first is given a node of the cluster to join, each other the one before it; else
    each is given a node of the cluster and all of them."""
    late_slow: float
    """Chance that a message is slow meanwhile."""
    wipes: int
    """So many founders may lose their data, and come back as new nodes."""
    rumours: bool
    """Who knows whom is drawn at random; else the gossip protocol finds it out."""
    quick_gossip: bool
    one_seed: bool
    """Gossip is told of one other machine; else of all."""
    named: bool
    """Nodes have the names of their machines; else those of their ids."""
    stranger: bool
    link: LinkQuality
    worker: WorkerSpeed
    twins: float
    """Chance that a request arrives once more, up to ``twin_s`` later."""
    twin_s: float
    start_spread_s: float
    """All machines are started within so long."""
    faults: tuple[str, ...]
    fault_interval_s: float
    fault_duration_s: float

    @staticmethod
    def drawn(seed: int) -> "Scenario":
        rng = rng_for(seed, "scenario")
        expect = rng.choice((1, 3, 3, 3, 5))
        founders = min(MAX_MACHINES, rng.randint(expect, 2 * expect - 1))
        if rng.random() < 0.5:
            founders = expect
        most = MAX_MACHINES - founders
        joiners = min(most, rng.choice((0, 0, 1, 2)) if expect > 1 else rng.choice((2, 3)))
        # Of its own, so that what a seed was before there were these it still is.
        late_rng = rng_for(seed, "late")
        late_expect = late_rng.choice((1, 3))
        late = late_expect + late_rng.randint(0, 1)
        return Scenario(
            seed=seed,
            expect=expect,
            founders=founders,
            joiners=joiners,
            eager=late_rng.choice((0, 0, joiners)),
            late=late if late_rng.random() < _LATE_SHARE else 0,
            late_expect=late_expect,
            late_chain=late == late_expect and late_rng.random() < 0.5,
            late_slow=late_rng.choice((0.0, 0.3)),
            wipes=2 * expect - 1 - founders,
            rumours=rng.random() < 0.5,
            quick_gossip=rng.random() < 0.8,
            one_seed=rng.random() < 0.3,
            named=rng.random() < 0.5,
            stranger=rng.random() < _STRANGER_SHARE,
            link=_drawn_link(rng),
            worker=WorkerSpeed(
                longest_s=rng.choice((0.002, 0.02, 0.2)),
                slow_chance=rng.choice((0.0, 0.0, 0.2)),
                slow_s=rng.choice((1.0, 4.0)),
            ),
            twins=rng.choice((0.0, 0.0, 0.1, 0.5)),
            twin_s=rng.choice((0.2, 8.0)),
            start_spread_s=rng.choice((0.0, 0.5, 5.0)),
            faults=tuple(fault for fault in FAULTS if rng.random() < 0.35),
            fault_interval_s=rng.choice((0.05, 0.2, 1.0)),
            fault_duration_s=rng.uniform(1.0, 8.0),
        )


def _drawn_link(rng: random.Random) -> LinkQuality:
    def perhaps(chance: float) -> float:
        return chance if rng.random() < 0.4 else 0.0

    return LinkQuality(
        longest_s=rng.choice((0.002, 0.02, 0.2)),
        slow_chance=perhaps(0.1),
        slow_s=rng.choice((0.5, 3.0)),
        loss=perhaps(rng.uniform(0.05, 0.4)),
        stream_break=perhaps(rng.uniform(0.02, 0.2)),
    )
