"""quorumlog: a replicated, append-only commit log."""

__version__ = "0.1.0"
