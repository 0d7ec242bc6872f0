"""Waiting for another process to get somewhere: a poll with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.05


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float = 20.0) -> T:
    """Call ``look`` until it returns something true; fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return found
