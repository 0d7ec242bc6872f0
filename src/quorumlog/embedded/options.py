"""What an embedded log does beyond storing records."""

from dataclasses import dataclass

from quorumlog.errors import ConfigError
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.compression import CODECS, DEFAULT_LEVEL, MAX_LEVEL
from quorumlog.log.config import check_number, check_whole
from quorumlog.log.pacer import MIN_BYTES_S


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of :func:`quorumlog.open` that are not those of the storage itself.

    Attributes:
        compression: ``zstd``: what is appended is compressed where that makes it smaller.
        compression_level: 1 (fastest) to 22 (smallest).
        retention: what has to stay; older segments are deleted. None: everything stays.
        compaction: of every key the newest record stays. None: all of them stay.
        housekeeping_interval_s: seconds from one turn of deletion and compaction to the next (0.01
            to 86,400); no thread is started when there is nothing to do.
        scrub_bytes_s: sealed segments are read for rot at this rate (4 KiB or more); None: never.
    """

    compression: str | None = None
    compression_level: int = DEFAULT_LEVEL
    retention: Retention | None = None
    compaction: Compaction | None = None
    housekeeping_interval_s: float = 30.0
    scrub_bytes_s: int | None = None

    def __post_init__(self) -> None:
        if self.compression is not None and self.compression not in tuple(CODECS):
            raise ConfigError(
                f"compression is one of {', '.join(CODECS)} or None, not {self.compression!r}"
            )
        check_whole("compression_level", self.compression_level, 1, MAX_LEVEL)
        if not isinstance(self.retention, Retention | None):
            raise ConfigError(f"retention is a Retention or None, not {self.retention!r}")
        if not isinstance(self.compaction, Compaction | None):
            raise ConfigError(f"compaction is a Compaction or None, not {self.compaction!r}")
        check_number("housekeeping_interval_s", self.housekeeping_interval_s, 0.01, 86_400)
        if self.scrub_bytes_s is not None:
            check_whole("scrub_bytes_s", self.scrub_bytes_s, MIN_BYTES_S, 1024**4)
