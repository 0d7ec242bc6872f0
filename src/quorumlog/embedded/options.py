"""What an embedded log does beyond storing records."""

from dataclasses import dataclass

from quorumlog.errors import ConfigError
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.compression import DEFAULT_LEVEL
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
        if not 0.01 <= self.housekeeping_interval_s <= 86_400:
            raise ConfigError(
                f"housekeeping_interval_s is from 0.01 to 86400, not {self.housekeeping_interval_s}"
            )
        if self.scrub_bytes_s is not None and self.scrub_bytes_s < MIN_BYTES_S:
            raise ConfigError(
                f"scrub_bytes_s is {MIN_BYTES_S} or more, or None, not {self.scrub_bytes_s}"
            )
