"""What a seed stands for: the shape of the cluster, its weather, and which faults it meets.

Swarm testing: every seed switches most kinds of trouble off, so that each is met alone and in
many combinations, and none hides another.
"""

import random
from dataclasses import dataclass, replace
from typing import Any

from quorumlog.log.config import FSYNC_ALWAYS, FSYNC_INTERVAL
from sim.network import LinkQuality
from sim.worker import WorkerSpeed

FAULTS = (
    "power",
    "kill",
    "stop",
    "pause",
    "partition",
    "isolate",
    "one_way",
    "slow_network",
    "clock_jump",
    "transfer",
    "reset",
    "ambush",
    "io_error",
    "disk_full",
)

REPLACED_AFTER_S = 5
"""The least that a cluster may be set to."""

_CALM_S = 12.0
_CALM_INTERVAL_S = 4.0
_OTHER_FAULTS = 1
"""Of the seeds in which failed nodes are replaced: how long faults go on, how often there is one,
and how many kinds besides outages."""

NEVER_S = 1e9
"""Longer than any run."""

_INTERVAL_SHARE = 0.15
"""Of the seeds, those whose topic has ``fsync=interval``."""


_MOVING_SHARE = 0.25
"""Of the seeds, those in which replicas and voters move."""

_CHURNING_SHARE = 0.6
"""Of those, the seeds in which nodes come and go, too."""

_REPLACING_SHARE = 0.25
"""Of those in which replicas move, the seeds in which the cluster replaces nodes that failed."""

_LIMITED_SHARE = 0.2
"""Of the seeds, those whose topic has limits, and those in which a client trims it."""


_NAP_SHARE = 0.2
"""Of the seeds, those in which leaders nap."""

_ROT_SHARE = 0.2
"""Of the seeds, those in which disks rot."""


@dataclass(frozen=True, slots=True)
class Swarm:
    seed: int
    nodes: int
    partitions: int
    election_timeout_s: float
    fsync: str
    """Of the topic; the metadata are always synced."""
    fsync_interval_s: float
    segment_bytes: int
    tail_cache_bytes: int
    max_append_bytes: int
    max_inflight_bytes: int
    coalesce_bytes: int
    state_interval_bytes: int
    link: LinkQuality
    worker: WorkerSpeed
    max_drift: float
    max_skew_ms: int
    faults: tuple[str, ...]
    fault_interval_s: float
    fault_duration_s: float
    producers: int
    records_per_producer: int
    record_bytes: int
    burst: int
    batch_bytes: int
    consumers: int
    retention_records: int
    """Of the topic, as is ``retention_ms``; -1: no limit."""
    retention_ms: int
    trims: bool
    """A client deletes records up to here and there."""
    max_lag_s: float
    """How long the files that a follower lacks are kept for it."""
    loop_flush_s: float
    """0: flushes are done on the worker alone, and take time."""
    sleep_after_s: float
    """A group without proposals sleeps after this; in some seeds never."""
    moves: bool
    """An operator moves replicas to and fro among more nodes than a partition has replicas."""
    churns: bool
    """Meanwhile nodes are added, and removed for good."""
    replaces: bool
    """The cluster replaces nodes that are not heard for ``REPLACED_AFTER_S``, and some are away for
    longer; gossip says who is dead."""
    surveyors: int
    """Clients whose history is checked for linearizability; half of the seeds have none."""
    holders: int
    """Clients that fence each other off and keep checkpoints; a third of the seeds has some."""

    @staticmethod
    def drawn(seed: int) -> "Swarm":
        rng = rng_for(seed, "swarm")
        faults = tuple(fault for fault in FAULTS if rng.random() < 0.4)
        sleep_rng = rng_for(seed, "sleep")
        fsync_rng = rng_for(seed, "fsync")
        fsync = FSYNC_ALWAYS
        if fsync_rng.random() < _INTERVAL_SHARE:
            fsync = FSYNC_INTERVAL
            faults = tuple(fault for fault in faults if fault != "power")
        if rng_for(seed, "rot").random() < _ROT_SHARE:
            faults = (*faults, "rot")
        if rng_for(seed, "nap").random() < _NAP_SHARE:
            faults = (*faults, "nap")
        moves_rng = rng_for(seed, "moves")
        moves = moves_rng.random() < _MOVING_SHARE
        drawn = Swarm(
            seed=seed,
            moves=moves,
            churns=moves and rng_for(seed, "churn").random() < _CHURNING_SHARE,
            replaces=moves and rng_for(seed, "replace").random() < _REPLACING_SHARE,
            nodes=rng.choice((3, 3, 3, 3, 5)),
            partitions=rng.choice((1, 1, 2)) * sleep_rng.choice((1, 1, 3)),
            election_timeout_s=rng.choice((0.15, 0.3)),
            fsync=fsync,
            fsync_interval_s=fsync_rng.choice((0.01, 0.1)),
            segment_bytes=rng.choice((1024, 4096, 1 << 20)),
            tail_cache_bytes=rng.choice((0, 2048, 1 << 20)),
            max_append_bytes=rng.choice((256, 4096, 1 << 20)),
            max_inflight_bytes=rng.choice((4096, 1 << 20)),
            coalesce_bytes=rng_for(seed, "coalesce").choice((0, 512, 64 * 1024)),
            state_interval_bytes=rng_for(seed, "state").choice((1, 25_000, 125_000, 1 << 26)),
            link=_draw_link(rng),
            worker=_draw_worker(rng),
            max_drift=rng.choice((0.0, 0.0, 0.01, 0.1)),
            max_skew_ms=rng.choice((0, 100, 60_000)),
            faults=faults,
            fault_interval_s=rng.choice((0.05, 0.15, 0.4)),
            fault_duration_s=rng.uniform(1.0, 5.0),
            producers=rng.choice((1, 2)),
            records_per_producer=rng.choice((10, 40, 100)),
            record_bytes=rng.choice((16, 16, 300)),
            burst=rng.choice((1, 3, 8, 20)),
            batch_bytes=rng.choice((1, 64, 1 << 20)),
            consumers=rng.choice((1, 1, 2)),
            **_draw_deletion(rng_for(seed, "deletion")),
            loop_flush_s=rng_for(seed, "loop_flush").choice((0.0, 0.0, 0.001)),
            sleep_after_s=sleep_rng.choice((0.02, 0.1, 0.4, NEVER_S)),
            surveyors=rng_for(seed, "surveyors").choice((0, 0, 0, 1, 2, 3)),
            holders=rng_for(seed, "holders").choice((0, 0, 0, 0, 2, 3)),
        )
        if moves:
            drawn = replace(drawn, nodes=moves_rng.choice((4, 4, 5)))
        return _calmed(drawn) if drawn.replaces else drawn

    @property
    def may_cut_power(self) -> bool:
        """Whether what was acknowledged survives that: with ``interval`` it may be unsynced."""
        return self.fsync == FSYNC_ALWAYS

    @property
    def may_bury(self) -> bool:
        """Whether a node may be lost for good: one more copy is, and rot has that budget."""
        return self.churns and "rot" not in self.faults

    @property
    def deletes(self) -> bool:
        """Whether records may go before everybody has read them."""
        return self.trims or max(self.retention_records, self.retention_ms) > 0


def _calmed(drawn: Swarm) -> Swarm:
    """There is time to miss a node, and few others are down meanwhile: two at a time keep either
    from being replaced."""
    return replace(
        drawn,
        faults=("outage", *drawn.faults[:_OTHER_FAULTS]),
        fault_interval_s=_CALM_INTERVAL_S,
        fault_duration_s=_CALM_S,
    )


def _draw_deletion(rng: random.Random) -> dict[str, Any]:
    """Most seeds keep everything."""
    has_limits = rng.random() < _LIMITED_SHARE
    return {
        "trims": rng.random() < _LIMITED_SHARE,
        "retention_records": rng.choice((2, 5, 20)) if has_limits else -1,
        "retention_ms": rng.choice((-1, -1, 1500)) if has_limits else -1,
        "max_lag_s": rng.choice((0.0, 0.5, 1e6)),
    }


def rng_for(seed: int, concern: str) -> random.Random:
    """A generator of its own for each concern: a draw more in one does not change the others."""
    return random.Random(f"{seed}/{concern}")


def _draw_link(rng: random.Random) -> LinkQuality:
    def perhaps(chance: float) -> float:
        return chance if rng.random() < 0.3 else 0.0

    return LinkQuality(
        longest_s=rng.choice((0.001, 0.005, 0.02)),
        slow_chance=perhaps(0.05),
        slow_s=rng.choice((0.1, 0.5)),
        loss=perhaps(rng.uniform(0.01, 0.2)),
        duplicate=perhaps(rng.uniform(0.01, 0.3)),
        reorder=rng.random() < 0.3,
        stream_break=perhaps(rng.uniform(0.005, 0.05)),
    )


def _draw_worker(rng: random.Random) -> WorkerSpeed:
    return WorkerSpeed(
        longest_s=rng.choice((0.001, 0.003, 0.02)),
        slow_chance=rng.choice((0.0, 0.0, 0.1)),
        slow_s=rng.choice((0.1, 0.4)),
    )
