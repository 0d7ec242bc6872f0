"""The services' bounds, in one place; a client has the same ones."""

from dataclasses import dataclass

from quorumlog.errors import ConfigError
from quorumlog.types import MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, MAX_RECORD_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for. Asking for more of a fetch gives the most there is.

    ``max_record_bytes``, ``max_batch_bytes``: over them a batch is refused, nothing is stored.
    ``max_unanswered_requests``, ``max_unanswered_bytes``: per ProduceStream; at either the server
    stops reading until answers have left. More lets a client pipeline deeper and costs memory.
    ``fetch_bytes``, ``max_fetch_bytes``: of one response; a single larger batch is still returned.
    ``max_wait_s``: longest wait of one Fetch. ``heartbeat_s``: silence on a Consume stream.
    """

    max_record_bytes: int = MAX_RECORD_BYTES
    max_batch_bytes: int = MAX_BATCH_BYTES
    max_unanswered_requests: int = 1024
    max_unanswered_bytes: int = 64 * 1024 * 1024
    fetch_bytes: int = 1024 * 1024
    max_fetch_bytes: int = 8 * 1024 * 1024
    max_wait_s: float = 30.0
    heartbeat_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.max_record_bytes <= self.max_batch_bytes <= MAX_BATCH_BYTES:
            raise ConfigError(
                f"limits: 0 < record ({self.max_record_bytes}) <= batch ({self.max_batch_bytes}) "
                f"<= {MAX_BATCH_BYTES} bytes"
            )
        if not 0 < self.fetch_bytes <= self.max_fetch_bytes <= MAX_MESSAGE_BYTES // 2:
            raise ConfigError(
                f"limits: 0 < fetch ({self.fetch_bytes}) <= largest fetch "
                f"({self.max_fetch_bytes}) <= {MAX_MESSAGE_BYTES // 2} bytes"
            )
        if self.max_unanswered_requests < 1 or self.max_unanswered_bytes < MAX_MESSAGE_BYTES:
            raise ConfigError(
                "limits: a stream needs room for at least one unanswered request of "
                f"{MAX_MESSAGE_BYTES} bytes"
            )
        if self.max_wait_s <= 0 or self.heartbeat_s <= 0:
            raise ConfigError("limits: the longest wait and the heartbeat are over 0 s")
