"""How fast and how carefully gossip works."""

from dataclasses import dataclass

from quorumlog.errors import ConfigError

_POSITIVE = (
    "probe_interval_s",
    "probe_timeout_s",
    "gossip_interval_s",
    "gossip_to_the_dead_s",
    "push_pull_interval_s",
    "reconnect_interval_s",
    "forget_after_s",
    "stream_timeout_s",
    "seed_retry_s",
    "leave_timeout_s",
    "key_check_interval_s",
)
_AT_LEAST_ONE = (
    "suspicion_multiplier",
    "suspicion_max_multiplier",
    "awareness_max",
    "indirect_checks",
    "gossip_fanout",
    "retransmit_multiplier",
    "max_members",
    "max_streams",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Defaults are memberlist's for a local network; durations in seconds.

    Raises ``ConfigError`` for a value, or a relation of two, that cannot work.
    """

    probe_interval_s: float = 1.0
    """One member is probed in each: shorter finds failures sooner and sends more."""

    probe_timeout_s: float = 0.5
    """How long a direct answer may take before others are asked to try; below the interval."""

    indirect_checks: int = 3
    """Members asked to probe in our place: more of them survive more loss."""

    suspicion_multiplier: int = 4
    """A suspect has this x log10(members) x probe interval to refute, once enough members
    suspect it: greater forgives longer pauses and finds failures later."""

    suspicion_max_multiplier: int = 6
    """While nobody else suspects it, the suspect has up to this many times longer."""

    awareness_max: int = 8
    """Bound of the local health score: a node that misses answers itself waits up to this many
    times longer before it accuses others (Lifeguard §IV-A)."""

    gossip_interval_s: float = 0.2
    """News leaves in packets this far apart; nothing is sent while there is none."""

    gossip_fanout: int = 3
    """Members that one round of news goes to."""

    gossip_to_the_dead_s: float = 30.0
    """A failed member gets news this long, so that it may hear of it and refute."""

    retransmit_multiplier: int = 4
    """Each piece of news is sent this x ln(members + 1), rounded up, times."""

    push_pull_interval_s: float = 30.0
    """All state is exchanged with one random member this often: repairs what loss left."""

    reconnect_interval_s: float = 10.0
    """A random failed member is called this often: heals partitions and finds the returned."""

    forget_after_s: float = 24 * 3600.0
    """Members that failed or left are forgotten after this long."""

    stream_timeout_s: float = 10.0
    """A TCP exchange that takes longer is given up."""

    stream_probes: bool = True
    """Ping over TCP as well when UDP gets no answer, so that lost UDP alone fails nobody."""

    seed_retry_s: float = 30.0
    """Longest wait between two tries to reach the seeds: while alone it starts at a fortieth
    and doubles; with company only seeds that are no members are tried, this far apart."""

    leave_timeout_s: float = 3.0
    """How long ``leave`` waits for the news of it to be sent."""

    packet_bytes: int = 1400
    """Largest UDP packet sent: below the MTU of every usual network. What labels and encryption
    add is taken from it."""

    label: str = ""
    """Packets and streams with another label, or none, are not taken: two clusters on one network
    cannot meet by mistake. In clear; at most 255 bytes, no protection by itself."""

    verify_incoming: bool = True
    """With keys: take nothing that is not encrypted. False while a running cluster begins to."""

    verify_outgoing: bool = True
    """With keys: send everything encrypted. False in the first step of that."""

    key_check_interval_s: float = 5.0
    """How often the key file is looked at for other keys."""

    max_members: int = 4096
    """Members remembered, failed ones included; further ones are ignored."""

    max_streams: int = 64
    """Incoming TCP exchanges at a time; further ones are closed at once."""

    @staticmethod
    def lan() -> "GossipConfig":
        """For one data centre: a failure is known 5 to 10 seconds later."""
        return GossipConfig()

    @staticmethod
    def local() -> "GossipConfig":
        """For one machine and for tests: a failure is known 1 to 4 seconds later."""
        return GossipConfig(
            probe_interval_s=0.5,
            probe_timeout_s=0.25,
            suspicion_multiplier=3,
            gossip_interval_s=0.05,
            gossip_to_the_dead_s=15.0,
            push_pull_interval_s=5.0,
            reconnect_interval_s=2.0,
            stream_timeout_s=3.0,
            seed_retry_s=4.0,
            leave_timeout_s=1.0,
        )

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not 0 < value <= 30 * 24 * 3600:
                raise ConfigError(f"{name} is {value}: it has to be above 0 and within 30 days")
        for name in _AT_LEAST_ONE:
            if not 1 <= getattr(self, name) <= 100_000:
                raise ConfigError(f"{name} is {getattr(self, name)}: it has to be 1 to 100000")
        if self.probe_timeout_s >= self.probe_interval_s:
            raise ConfigError(
                f"probe_timeout_s is {self.probe_timeout_s}: it has to be shorter than "
                f"probe_interval_s, {self.probe_interval_s}, to leave time for indirect probes"
            )
        if not 1024 <= self.packet_bytes <= 65_000:
            raise ConfigError(
                f"packet_bytes is {self.packet_bytes}: it has to be 1024 to 65000, without what "
                "labels and encryption add"
            )
