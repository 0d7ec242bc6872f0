"""What changes with all that a replica does, read where it lies: asked for after every turn."""

from quorumlog.replication.replica import Replica


class Glance:
    """Of one replica. ``seen`` is what :meth:`numbers` gave when the replica was looked at."""

    __slots__ = ("_applier", "_core", "_layout", "_log_state", "replica", "seen")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.seen: tuple[object, ...] = ()
        self._core = replica.core
        self._applier = replica._applier
        self._log_state = replica.log._state
        self._layout = replica.log._layout

    def numbers(self) -> tuple[object, ...]:
        """Term, role and commit index; where the log begins, ends and is durable; what is applied;
        whether it is fenced, or asleep."""
        core, layout = self._core, self._layout
        return (
            core.term,
            core.role,
            core.commit_index,
            core.asleep,
            layout.next_index,
            layout.last_term,
            layout.written_index,
            layout.segments[0].first_index,
            self._log_state.start_offset,
            self._applier.applied_index,
            self.replica.failure,
        )
