"""Settings of a node: flags, then the environment, then a TOML file, then defaults."""

import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import structlog

from quorumlog.discovery.seeds import parse_seed
from quorumlog.errors import ConfigError
from quorumlog.log.pacer import MIN_BYTES_S

_log = structlog.get_logger()

PREFIX = "QUORUMLOG_"
_CLIENT_VARIABLES = {"QUORUMLOG_SERVER"}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Every setting has the name of its flag with ``_`` for ``-``; ``QUORUMLOG_DATA_DIR`` and so
    on."""

    data_dir: str = "./quorumlog-data"
    """Directory of identity, logs and votes; made when missing. One node each."""
    listen: str = "127.0.0.1:7400"
    """HOST:PORT of the gRPC endpoint; port 0 takes a free one. Other machines need a reachable
    address."""
    gossip: str = ""
    """HOST:PORT of the gossip endpoint (UDP and TCP); empty: listen's host, port 7946."""
    gossip_keys: str = ""
    """File with the keys that gossip is encrypted with, the same on every node, see
    docs/discovery.md; empty: gossip is in clear. The file is read again when it changes."""
    gossip_label: str = ""
    """Nodes with another label are not heard: two clusters on one network cannot meet by mistake.
    At most 255 bytes."""
    gossip_verify: str = "both"
    """With gossip_keys. both: send encrypted, take nothing else; outgoing: send encrypted, take
    both; none: send in clear, take both. A running cluster begins to encrypt by none, outgoing,
    both."""
    advertise: str = ""
    """HOST:PORT that other nodes and clients use; empty: listen. Needed when listen is 0.0.0.0."""
    join: tuple[str, ...] = ()
    """Gossip endpoints of any nodes of the cluster: HOST:PORT, dns+a://HOST:PORT (every address
    of the name) or dns+srv://_SERVICE._PROTOCOL.NAME; in the environment with commas."""
    name: str = ""
    """A name for people, up to 64 characters; empty: made of the node id."""
    rack: str = ""
    """What this node shares its failures with: a rack, a zone. Told to the others and shown, moves
    nothing; up to 64 bytes."""
    bootstrap_expect: int | None = None
    """Form a cluster when this many nodes see each other; 0: only join one. 0 to 9; None: 1 without
    join, else 0. An odd number: one more survives no more failures. With a join of others 1 only
    joins, too: nobody would be asked."""
    election_timeout_ms: int = 300
    """A follower waits [1, 2) times this for its leader; more tolerates slower disks, less fails
    over faster. 50 to 60,000."""
    heartbeat_ms: int = 50
    """Between a leader's signs of life; at most a third of election_timeout_ms."""
    segment_bytes: int = 64 * 1024 * 1024
    """A log's file is closed and the next one begun at this size. 8 MiB to 2 GiB."""
    fsync_interval_ms: int = 1_000
    """For topics with fsync = interval: data is on disk after at most this. 10 to 60,000."""
    retention_interval_ms: int = 30_000
    """How often old segments are looked for in topics with a limit, or that were trimmed; less
    deletes more exactly. 100 to 3,600,000."""
    leader_return_ms: int = 10_000
    """A node that was away leads again what it is preferred for once it is back for so long; a
    longer one moves leaders less when a node comes and goes. 0 to 3,600,000."""
    retention_max_lag_ms: int = 900_000
    """Deleted records stay on disk for a follower that lacks them, unless it was silent for so
    long; then it starts anew from its leader's state. 0 to 604,800,000 (a week)."""
    keys: str = ""
    """The key file that this node's logs are encrypted with, see docs/encryption.md; empty: they
    are not. Each node may have its own."""
    scrub_bytes_s: int = 4 * 1024 * 1024
    """Sealed segments are read for rot, at most so many bytes a second over all partitions of the
    node: more finds it sooner and takes more of the disk. 4 KiB to 1 GiB; 0: never."""
    max_record_bytes: int = 1024 * 1024
    """Key, value and headers of one record together. 1 KiB to 3 MiB."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_format: str = "auto"
    """console: for people; json: an object a line; auto: console on a terminal, else json."""

    def __post_init__(self) -> None:
        parse_address("listen", self.listen)
        for name in ("gossip", "advertise"):
            if getattr(self, name):
                parse_address(name, getattr(self, name))
        for seed in self.join:
            parse_seed(seed)
        if self.bootstrap_expect is not None:
            _within("bootstrap_expect", self.bootstrap_expect, 0, 9)
        _within("election_timeout_ms", self.election_timeout_ms, 50, 60_000)
        _within("segment_bytes", self.segment_bytes, 8 << 20, 2 << 30)
        _within("fsync_interval_ms", self.fsync_interval_ms, 10, 60_000)
        _within("retention_interval_ms", self.retention_interval_ms, 100, 3_600_000)
        _within("leader_return_ms", self.leader_return_ms, 0, 3_600_000)
        _within("retention_max_lag_ms", self.retention_max_lag_ms, 0, 604_800_000)
        if self.scrub_bytes_s:
            _within("scrub_bytes_s", self.scrub_bytes_s, MIN_BYTES_S, 1 << 30, ", or is 0: never")
        _within("max_record_bytes", self.max_record_bytes, 1 << 10, 3 << 20)
        _within("heartbeat_ms", self.heartbeat_ms, 5, self.election_timeout_ms // 3)
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigError(f"log_level is {self.log_level!r}: use debug, info, warning or error")
        if self.log_format not in ("auto", "console", "json"):
            raise ConfigError(f"log_format is {self.log_format!r}: use auto, console or json")
        if self.gossip_verify not in ("both", "outgoing", "none"):
            raise ConfigError(
                f"gossip_verify is {self.gossip_verify!r}: use both, outgoing or none"
            )
        if len(self.gossip_label.encode()) > 255:
            raise ConfigError("gossip_label has more than 255 bytes")
        if len(self.name) > 64:
            raise ConfigError(f"name has {len(self.name)} characters and the limit is 64")
        if len(self.rack.encode()) > 64 or not self.rack.isprintable():
            raise ConfigError(f"rack is {self.rack!r}: it has up to 64 bytes, all printable")
        if not self.data_dir:
            raise ConfigError("data_dir is empty: name a directory")
        host, _ = parse_address("listen", self.listen)
        if not self.advertise and is_wildcard(host):
            raise ConfigError(
                f"listen is {self.listen}, which no other node can dial: set advertise to the "
                "HOST:PORT by which this node is reached"
            )

    @property
    def expect(self) -> int:
        """How many nodes form the cluster, 0: none does, this node joins one."""
        if self.bootstrap_expect is not None:
            return self.bootstrap_expect
        return 0 if self.join else 1

    @property
    def gossip_address(self) -> tuple[str, int]:
        if self.gossip:
            return parse_address("gossip", self.gossip)
        return parse_address("listen", self.listen)[0], 7946


def is_wildcard(host: str) -> bool:
    """Whether ``host`` stands for all interfaces."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def parse_address(name: str, value: str) -> tuple[str, int]:
    """``HOST:PORT`` as (host, port); ``[::1]:7400`` for IPv6.

    Raises:
        ConfigError: names the setting.
    """
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    is_host = host and "[" not in host and "]" not in host
    if not is_host or not _is_port(port):
        raise ConfigError(f"{name} is {value!r}: write HOST:PORT, for example 127.0.0.1:7400")
    return host, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _within(name: str, value: int, lowest: int, highest: int, otherwise: str = "") -> None:
    if not lowest <= value <= highest:
        raise ConfigError(f"{name} is {value}: it goes from {lowest} to {highest}{otherwise}")


def load_config(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    config_file: str | None = None,
) -> NodeConfig:
    """The settings of a node.

    Args:
        flags: by field name; None and empty sequences are flags that were not given.
        environ: ``QUORUMLOG_...``; variables that are no setting are warned about.
        config_file: TOML, keys by field name. Falls back to ``QUORUMLOG_CONFIG``.

    Raises:
        ConfigError: a file that cannot be read, an unknown key in it, an impossible value anywhere.
    """
    known = {field.name: field for field in fields(NodeConfig)}
    values: dict[str, Any] = {}
    config_file = config_file or environ.get(f"{PREFIX}CONFIG")
    if config_file:
        values.update(_read_file(config_file, known))
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in known:
            values[name] = _convert(f"{variable} in the environment", text, known[name].type)
        elif name != "config":
            _log.warning("unknown_variable", variable=variable)
    for name, value in flags.items():
        if value is not None and value != ():
            values[name] = value
    return NodeConfig(**values)


def _read_file(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the configuration file {path} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        # TOML of too many digits or brackets raises these two themselves.
        raise ConfigError(f"the configuration file {path} is not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{path} has the unknown setting {key!r}{hint}")
        values[key] = _convert(f"{key} in {path}", value, known[key].type)
    return values


def _convert(where: str, value: Any, kind: Any) -> Any:
    if kind in (int, int | None):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ConfigError(f"{where} is {value!r}: it has to be a whole number")
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"{where} is {value!r}: it has to be a whole number") from None
    if kind is str:
        if not isinstance(value, str):
            raise ConfigError(f"{where} is {value!r}: it has to be text")
        return value
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{where} is {value!r}: it has to be a list of HOST:PORT")
    return tuple(value)
