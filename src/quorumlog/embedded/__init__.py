"""A log in the caller's own process: no server. ``quorumlog.open`` and its like lead here."""

from quorumlog.embedded.log import EmbeddedLog
from quorumlog.embedded.opening import open
from quorumlog.embedded.values import Value

__all__ = ["EmbeddedLog", "Value", "open"]
