"""How long to wait between attempts, and which failures are worth another one."""

import random
from typing import Final

from quorumlog.errors import (
    Closed,
    InvariantViolation,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    OutOfOrderSequence,
    Overloaded,
    QuorumlogError,
    StorageError,
    Unavailable,
)

BACKOFF_INITIAL_S: Final = 0.02
BACKOFF_LIMIT_S: Final = 0.1
"""An election takes about half a second, and a client should not sleep long past its end."""


class Backoff:
    """Doubling delays with jitter: between half and all of 20 ms, 40 ms … 0.1 s."""

    def __init__(
        self,
        rng: random.Random,
        initial_s: float = BACKOFF_INITIAL_S,
        limit_s: float = BACKOFF_LIMIT_S,
    ) -> None:
        self._rng = rng
        self._initial_s = initial_s
        self._limit_s = limit_s
        self._delay_s = initial_s

    @property
    def fresh(self) -> bool:
        """Whether no delay was taken since the last success."""
        return self._delay_s == self._initial_s

    def next_s(self) -> float:
        delay_s = self._delay_s * self._rng.uniform(0.5, 1.0)
        self._delay_s = min(self._delay_s * 2, self._limit_s)
        return delay_s

    def reset(self) -> None:
        self._delay_s = self._initial_s


def worth_another_attempt(error: QuorumlogError) -> bool:
    """Whether an idempotent request may go through later or elsewhere.

    A replica's disk trouble counts: another replica will lead. What the request itself is wrong
    about does not.
    """
    return error.retryable or isinstance(error, OutcomeUnknown | StorageError)


def surely_not_done(error: QuorumlogError) -> bool:
    """Whether a handler's ``error`` promises that this very request changed nothing.

    Everything that is not in doubt: a failed connection, a node that stopped, a lost leadership and
    a failing disk leave it open whether the request was carried out.
    """
    if isinstance(error, NotLeader | Overloaded | OutOfOrderSequence):
        return True
    return not isinstance(
        error, Unavailable | OutcomeUnknown | StorageError | Closed | InvariantViolation
    )


def surely_leads(error: QuorumlogError) -> bool:
    """Whether only a leader answers with ``error``: asking elsewhere would not help."""
    return isinstance(error, Overloaded | OutOfOrderSequence | OffsetOutOfRange)
