"""The settings of a topic, and the rules for them."""

from dataclasses import dataclass, replace
from typing import Final

from quorumlog.broker._pb import metadata_pb2
from quorumlog.errors import InvalidArgument
from quorumlog.log.cleaning.retention import Retention

FSYNC_MODES: Final = ("always", "interval")

UNSET: Final = -1
"""Of a limit: there is none. Of ``segment_bytes``: what the node is set to."""

MAX_RETENTION_MS: Final = 1000 * 366 * 86_400 * 1000
MIN_SEGMENT_BYTES: Final = 64 * 1024
MAX_SEGMENT_BYTES: Final = 2 << 30
_MAX_COUNT: Final = 2**63 - 1

_BOUNDS: Final = {
    "retention_ms": (1, MAX_RETENTION_MS, "no limit"),
    # Files count with their headers: less would delete everything at once.
    "retention_bytes": (MIN_SEGMENT_BYTES, _MAX_COUNT, "no limit"),
    "retention_records": (1, _MAX_COUNT, "no limit"),
    "segment_bytes": (MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES, "what the nodes are set to"),
}


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How each partition of a topic is kept.

    With several limits, records go as soon as one of them lets them go.

    Attributes:
        fsync: ``always``, or ``interval`` (acknowledged from the memory of a majority).
        retention_ms: records that are younger stay, in milliseconds.
        retention_bytes: the newest so many bytes of segments stay.
        retention_records: the newest so many offsets stay.
        segment_bytes: size at which a file is closed and the next one begun.
    """

    fsync: str = "always"
    retention_ms: int = UNSET
    retention_bytes: int = UNSET
    retention_records: int = UNSET
    segment_bytes: int = UNSET

    @property
    def retention(self) -> Retention:
        return Retention(
            age_s=None if self.retention_ms == UNSET else self.retention_ms / 1000,
            bytes=None if self.retention_bytes == UNSET else self.retention_bytes,
            records=None if self.retention_records == UNSET else self.retention_records,
        )

    def changed_by(self, message: metadata_pb2.TopicConfig) -> "TopicConfig":
        """With what ``message`` names; what it leaves out stays."""
        numbers = {name: getattr(message, name) for name in _BOUNDS if message.HasField(name)}
        return replace(self, fsync=message.fsync or self.fsync, **numbers)


def check_topic_config(message: metadata_pb2.TopicConfig) -> None:
    """Raise InvalidArgument for a value that is none; what is left out is fine."""
    if message.fsync and message.fsync not in FSYNC_MODES:
        raise InvalidArgument(f"fsync is {' or '.join(FSYNC_MODES)}, not {message.fsync!r}")
    for name, (lowest, highest, otherwise) in _BOUNDS.items():
        value = getattr(message, name)
        if message.HasField(name) and value != UNSET and not lowest <= value <= highest:
            raise InvalidArgument(
                f"{name} goes from {lowest} to {highest}, or is {UNSET}: {otherwise}; not {value}"
            )


def check_cleanup(cleanup: str) -> None:
    """Raise InvalidArgument for every policy but ``delete`` (and none named)."""
    if cleanup == "compact":
        raise InvalidArgument(
            "topics of a cluster are not compacted yet, cleanup can only be delete; an embedded "
            "log can be: quorumlog.open(path, compaction=...)"
        )
    if cleanup not in ("", "delete"):
        raise InvalidArgument(f"cleanup is delete, not {cleanup!r}")
