"""What the network, the disks and the nemesis do in one run of a random group."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Weather:
    """What the network, the disks and the nemesis do in one run, drawn from its seed."""

    loss: float
    duplication: float
    latency_s: float
    straggle: float
    """Share of messages that take up to 40 times as long, and so overtake nothing."""
    disk_s: float
    crash_every_s: float
    cut_every_s: float
    order_every_s: float
    """Transfers, campaigns."""
    change_every_s: float
    """Of members."""
    read_every_s: float
    propose_every_s: float
    over_wire: bool
    bounce_every_s: float = 100.0
    """A member crashes and is back at once."""
    leader_only: float = 0.5
    """Share of the cuts that are between the leader and some."""
    one_way: float = 0.3
    """Share of the cuts that only stop what comes from inside."""
    rates: tuple[float, ...] = (0.9, 1.0, 1.0, 1.1)
    """How fast a member's clock may run; as different as the lease allows for."""
    is_first_favoured: bool = False
    """Leadership is given to the first member, whose clock is the slowest, all others the fastest.

    Left alone, leaders are the fast ones: their timers fire first."""
    one_link: float = 0.0
    """Share of the cuts that are between the leader and one other."""


def draw_weather(rng: random.Random) -> Weather:
    def often(*choices: float) -> float:
        return rng.choice(choices)

    return Weather(
        loss=often(0.0, 0.0, 0.02, 0.2),
        duplication=often(0.0, 0.0, 0.1),
        latency_s=often(0.0005, 0.002, 0.01),
        straggle=often(0.0, 0.0, 0.05, 0.3),
        disk_s=often(0.0002, 0.002, 0.02),
        crash_every_s=often(0.05, 0.3, 100.0),
        cut_every_s=often(0.1, 0.4, 100.0),
        order_every_s=often(0.1, 0.5, 100.0),
        change_every_s=often(0.02, 0.1, 100.0),
        propose_every_s=often(0.002, 0.01, 0.03),
        read_every_s=often(0.003, 0.02),
        over_wire=rng.random() < 0.2,
    )


def draw_lease_weather(rng: random.Random) -> Weather:
    """Everything that a lease has to fear, and enough calm for leaders to have one."""
    return Weather(
        loss=0.0,
        duplication=0.0,
        latency_s=rng.choice((0.0003, 0.0003, 0.003)),
        straggle=rng.choice((0.0, 0.3)),
        disk_s=0.0002,
        crash_every_s=100.0,
        cut_every_s=0.15,
        order_every_s=0.02,
        change_every_s=rng.choice((0.3, 100.0)),
        propose_every_s=0.003,
        read_every_s=0.0005,
        over_wire=False,
        bounce_every_s=rng.choice((0.04, 100.0)),
        leader_only=1.0,
        one_way=0.5,
        rates=(0.9, 1.1),
        is_first_favoured=True,
        one_link=0.4,
    )
