"""What keeps a run from the rest of the process: no log of the product, no garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from sim.trace import Trace


@contextmanager
def quiet_logs(trace: Trace | None) -> Iterator[None]:
    """The nodes' own log goes into the trace, or nowhere."""
    before = structlog.get_config()

    def note(logger: object, method: str, event: Any) -> Any:
        if trace is not None:
            trace.add(f"log {method} {event}")
        raise structlog.DropEvent

    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def no_collector() -> Iterator[None]:
    """Collect garbage after the run: when a destructor runs must not depend on anything else."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
