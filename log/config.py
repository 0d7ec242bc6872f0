"""Settings of one log."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quorumlog.errors import ConfigError

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

FSYNC_ALWAYS: Final = "always"
FSYNC_INTERVAL: Final = "interval"
FSYNC_NEVER: Final = "never"

_FSYNC = (FSYNC_ALWAYS, FSYNC_INTERVAL, FSYNC_NEVER)
_MIB = 1024 * 1024

DEFAULT_SEGMENT_BYTES: Final = 64 * _MIB


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How a log is stored.

    Attributes:
        segment_bytes: a segment is sealed before it would grow over this, headers excluded
            (1 KiB to 1 TiB). Larger: fewer files; smaller: less to scan at open.
        segment_age_s: a segment is sealed before the first append that comes so many seconds after
            it was begun (1 to 10^9); None: only its size counts.
        index_interval_bytes: a sparse index entry (40 bytes) stands for so many bytes of a
            segment (128 to 64 MiB). Larger: less memory; smaller: less to skip per lookup.
        tail_cache_bytes: batches that were written already are kept in memory up to this (0 to
            16 GiB), for readers near the end. What is not written yet is always in memory.
        fsync: when ``flush`` calls fdatasync. ``always``: every time. ``interval``: when
            ``fsync_interval_s`` have passed since the oldest write not synced; a power cut
            loses what came after, a crash of the process loses nothing. ``never``: only when a
            segment is sealed, at a truncation and at ``close``.
        fsync_interval_s: seconds (above 0, at most 3600), for ``interval``.
        max_open_segments: file handles kept for reading (1 to 10,000); 16 where half of what the
            process may open is open. More: a read anywhere in a large log opens no file.
        keys: new segments are encrypted with the active one, and encrypted ones are read with
            the key they name; None, or none active: no segment is encrypted that begins now.
    """

    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    segment_age_s: float | None = None
    index_interval_bytes: int = 32 * 1024
    tail_cache_bytes: int = 8 * _MIB
    fsync: str = FSYNC_ALWAYS
    fsync_interval_s: float = 0.1
    max_open_segments: int = 1024
    keys: "KeyRing | None" = None

    def __post_init__(self) -> None:
        check_whole("segment_bytes", self.segment_bytes, 1024, 1024**4)
        check_whole("index_interval_bytes", self.index_interval_bytes, 128, 64 * _MIB)
        check_whole("tail_cache_bytes", self.tail_cache_bytes, 0, 16 * 1024 * _MIB)
        check_whole("max_open_segments", self.max_open_segments, 1, 10_000)
        if self.segment_age_s is not None:
            check_number("segment_age_s", self.segment_age_s, 1, 10**9)
        if self.fsync not in _FSYNC:
            raise ConfigError(f"fsync is one of {', '.join(_FSYNC)}, not {self.fsync!r}")
        check_number("fsync_interval_s", self.fsync_interval_s, 0, 3600)
        if not self.fsync_interval_s:
            raise ConfigError("fsync_interval_s is above 0")


def check_whole(name: str, number: object, low: int, high: int) -> None:
    """Raise ConfigError unless the setting is a whole number from ``low`` to ``high``."""
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ConfigError(f"{name} is a whole number from {low} to {high}, not {number!r}")


def check_number(name: str, number: object, low: float, high: float) -> None:
    """Raise ConfigError unless the setting is a number from ``low`` to ``high``."""
    if not isinstance(number, int | float) or not low <= number <= high:
        raise ConfigError(f"{name} is from {low} to {high}, not {number!r}")
