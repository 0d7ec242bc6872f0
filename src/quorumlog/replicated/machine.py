"""What a program gives to have its state replicated."""

from dataclasses import dataclass
from typing import Final, Protocol

MAX_COMMAND_BYTES: Final = 1024 * 1024
"""A longer command is refused before it is proposed."""

MAX_RESULT_BYTES: Final = 1024 * 1024
"""A longer result is a bug of the machine, as an exception in ``apply`` is."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command as every replica gets it, with the same values.

    ``index`` is the command's place in the group's log: it grows, with gaps. ``timestamp_ms`` is
    when the leader took it, in milliseconds since the Unix epoch, never less than the one before:
    the time to use in place of the clock.
    """

    body: bytes
    index: int
    timestamp_ms: int


class Machine(Protocol):
    """A deterministic state machine. Called in the event loop of the program; a call that takes
    long holds up heartbeats (an election timeout is 0.3 s by default).

    The state must follow from the commands alone: no clock (``Command.timestamp_ms``), no chance,
    no environment, no order of a set, no floats that libraries round in their own ways.
    """

    def apply(self, command: Command) -> bytes:
        """Take one committed command; the result goes to who proposed it, wherever that was.

        Raises:
            Refused: the command is not done; the proposer gets just that. It is a result as any
                other: every replica has to come to it, and to the same state.
            Anything else is a bug and stops this replica before the command counts as applied.
        """
        ...

    def snapshot(self) -> bytes:
        """The whole state. Replicas with the same state should return the same bytes."""
        ...

    def restore(self, snapshot: bytes) -> None:
        """Become the state of ``snapshot``, whatever the state was.

        Called at the start, and later when this node was so far behind that it is given the state
        of another. What it raises stops this replica.
        """
        ...
