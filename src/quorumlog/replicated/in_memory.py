"""A group of one, in memory: for the tests of programs that use one."""

from types import TracebackType
from typing import Self

from quorumlog.errors import Closed, OutcomeUnknown, Unavailable
from quorumlog.log.batch import Draft, Kind
from quorumlog.replicated.command import UserCommand
from quorumlog.replicated.group import DEFAULT_TIMEOUT_S
from quorumlog.replicated.group_machine import GroupMachine
from quorumlog.replicated.machine import Machine
from quorumlog.replicated.outcome import Outcome

_TERM = 1


class InMemoryGroup:
    """Implements :class:`~quorumlog.replicated.group.Group` without disk, peers or time.

    Commands go through the same format, the same checks and the same remembering of results as in
    a real group. ``now_ms`` is what commands are stamped with; set it to let time go on.
    """

    def __init__(self, machine: Machine) -> None:
        self.now_ms = 0
        self._machine = GroupMachine(machine, "memory")
        self._stamped_ms = 0
        self._drawn = 0
        self._answer_lost = False
        self._available = True
        self._closed = False

    @property
    def machine(self) -> Machine:
        return self._machine.machine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True

    async def propose(
        self,
        command: bytes,
        *,
        request_id: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        forward: bool = True,
    ) -> bytes:
        """See :meth:`quorumlog.replicated.group.Group.propose`."""
        self._check()
        if request_id is None:
            self._drawn += 1
            request_id = f"drawn {self._drawn}"
        machine = self._machine
        body = UserCommand(request_id.encode(), machine.index, bytes(command)).encode()
        self._stamped_ms = max(self._stamped_ms, self.now_ms)
        draft = Draft.of(body, kind=Kind.COMMAND)
        outcome = machine.apply(draft.stamp(machine.index + 1, _TERM, 0, self._stamped_ms))
        if self._answer_lost:
            self._answer_lost = False
            raise OutcomeUnknown("the answer was lost on request")
        if not isinstance(outcome, Outcome):
            raise OutcomeUnknown("the command has no outcome")
        return outcome.result()

    async def read(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """See :meth:`quorumlog.replicated.group.Group.read`."""
        self._check()

    # -- what may happen to a real one ---------------------------------------------------------

    def lose_next_answer(self) -> None:
        """The next command is applied and its proposer gets OutcomeUnknown."""
        self._answer_lost = True

    def set_available(self, available: bool) -> None:
        """While False there is no leader: everything raises Unavailable and changes nothing."""
        self._available = available

    def restart(self, machine: Machine) -> None:
        """Go on with ``machine``, a new one, which is given the snapshot of the present one."""
        state = self._machine.snapshot()
        self._machine = GroupMachine(machine, "memory")
        self._machine.restore(state)

    def _check(self) -> None:
        if self._closed:
            raise Closed("this group is closed")
        if not self._available:
            raise Unavailable("there is no leader, on request")
