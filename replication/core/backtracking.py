"""Where a follower's log departs from the leader's, in few round trips (Raft §5.3, end).

Terms never decrease along a log. So when the leader holds (index p, term t) and the follower does
not, nothing of the follower's that has a term above t and stands at p or below can be the
leader's: the follower skips it and names its newest batch of a term not above t. The leader does
the same in its own log with the term it is told. Each round trip passes over whole terms on both
sides.
"""

from quorumlog.replication.core.log_port import RaftLog
from quorumlog.types import Index


def newest_not_after(log: RaftLog, bound: int, term: int) -> Index:
    """The largest index <= ``bound`` whose batch has a term <= ``term``.

    ``bound`` may be past the log's end. At least ``start_index - 1``: what stood up to there is
    committed, so every later leader has it. O(log n) calls of ``term_at``.
    """
    low = log.start_index - 1
    high = min(bound, log.last_index)
    if high <= low:
        return Index(low)
    if log.term_at(high) <= term:
        return Index(high)
    # Invariant: low fits (or is the floor), high does not.
    while high - low > 1:
        middle = (low + high) // 2
        if log.term_at(middle) <= term:
            low = middle
        else:
            high = middle
    return Index(low)
