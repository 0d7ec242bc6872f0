"""Waiting for what the program logs, also from its threads."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import structlog


@contextmanager
def logged(*events: str) -> Iterator["SimpleQueue[dict[str, Any]]"]:
    """What is logged as one of ``events`` meanwhile, in the queue; nothing is printed."""
    found: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def take(logger: object, level: str, values: MutableMapping[str, Any]) -> str:
        if values["event"] in events:
            found.put({"level": level, **values})
        raise structlog.DropEvent

    # In place, as structlog's own capture_logs does: a logger in use may hold this very list.
    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [take]
    structlog.configure(processors=processors)
    try:
        yield found
    finally:
        processors[:] = before
        structlog.configure(processors=processors)
