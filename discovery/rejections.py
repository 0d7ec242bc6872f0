"""What was sent to this node and not taken: counted by kind, logged at a bounded rate."""

from collections import Counter
from typing import Final

import structlog

from quorumlog.discovery.limits import RateLimit
from quorumlog.errors import QuorumlogError

_log = structlog.get_logger(__name__)

_LOG_INTERVAL_S: Final = 10.0
_SUMMARY_INTERVAL_S: Final = 60.0
_BUG: Final = QuorumlogError.reason


class Rejections:
    """``counts`` has the errors' ``reason``: PROTOCOL_ERROR (malformed), FOREIGN_PEER (another
    label or key), REPLAYED_PACKET, OVERSIZED_MESSAGE; INCOMPATIBLE_MEMBER, where only a claim was
    refused and not all that it came with; BROKEN_STREAM for one that ended or stalled, and
    INTERNAL for what a bug of ours did not let through."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._limit = RateLimit(_LOG_INTERVAL_S)
        self._bug_limit = RateLimit(_LOG_INTERVAL_S)
        self._summary_limit = RateLimit(_SUMMARY_INTERVAL_S)
        self._told: Counter[str] = Counter()

    def count(self, sender: object, error: Exception, now: float) -> None:
        """Note one more; a line at debug every ten seconds at most, of bugs with a traceback, and
        a warning with what came since the one before every minute at most."""
        kind = _kind(error)
        self.counts[kind] += 1
        if self._summary_limit.allows(now):
            _log.warning("gossip_not_taken", **(self.counts - self._told))
            self._told = Counter(self.counts)
        if kind == _BUG and self._bug_limit.allows(now):
            _log.error("gossip_input_failed", sender=sender, exc_info=error)
        if self._limit.allows(now):
            _log.debug(
                "gossip_rejected",
                sender=sender,
                kind=kind,
                error=str(error) or type(error).__name__,
                not_logged=self._limit.take_suppressed(),
            )


def _kind(error: Exception) -> str:
    if isinstance(error, QuorumlogError):
        return error.reason
    return "BROKEN_STREAM" if isinstance(error, OSError) else _BUG
