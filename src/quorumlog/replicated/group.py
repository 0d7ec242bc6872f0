"""What a program does with its replicated machine, whichever kind of group it is in."""

from typing import Final, Protocol

DEFAULT_TIMEOUT_S: Final = 10.0


class Group(Protocol):
    """Implemented by :class:`~quorumlog.replicated.replicated.Replicated` and, for tests, by
    :class:`~quorumlog.replicated.in_memory.InMemoryGroup`."""

    async def propose(
        self,
        command: bytes,
        *,
        request_id: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        forward: bool = True,
    ) -> bytes:
        """Have ``command`` applied everywhere; what ``apply`` returned.

        When it returns, the command is on the disks of a majority and applied at the leader. It is
        applied once, also where it has to be tried again through an election.

        Args:
            request_id: 1 to 64 bytes of UTF-8. A command under an id that was used before is not
                applied: the result of then comes back. None: one is drawn.
            timeout_s: all tries together.
            forward: have the leader do it, whoever that is; False: only if this node leads.

        Raises:
            Refused: by the machine; a result, remembered under ``request_id`` as any other.
            OutcomeUnknown: it may have been applied, or may yet be. Only the same ``request_id`` is
                safe to repeat.
            NotLeader: ``forward`` is False and another node leads; the error has its address.
            Unavailable: there was no leader in time; nothing was applied, nor will be.
            InvalidArgument: over a limit. LogFenced: this replica has stopped. Closed.
        """
        ...

    async def read(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """When it returns, the machine here holds everything that was acknowledged anywhere before
        the call: look at it before the next ``await``, and the answer is linearizable.

        Raises:
            Unavailable: not in time, perhaps for want of a majority. LogFenced, Closed.
        """
        ...
