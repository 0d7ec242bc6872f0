"""A state machine of one's own, replicated; the names for programs are importable from
``quorumlog``."""
