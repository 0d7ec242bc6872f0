"""Proposals and reads of one node: done here where it leads, by the leader otherwise, and tried
again through elections."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from quorumlog.errors import (
    Corrupt,
    DiskFull,
    LogFenced,
    NotLeader,
    OutcomeUnknown,
    ProtocolError,
    QuorumlogError,
    StorageError,
    Unavailable,
)
from quorumlog.log.batch import Draft, Kind
from quorumlog.replicated.command import UserCommand, decode_command
from quorumlog.replicated.group import DEFAULT_TIMEOUT_S
from quorumlog.replicated.group_machine import GroupMachine
from quorumlog.replicated.outcome import Outcome, Verdict
from quorumlog.replicated.request import PROPOSE, READ, decode_index, encode_index
from quorumlog.replication.replica import Replica
from quorumlog.types import Index, NodeId

T = TypeVar("T")

_RETRY_S: Final = 0.03
"""Between two tries: a tenth of an election timeout."""


class LeaderCalls(Protocol):
    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        """Give a request (:mod:`quorumlog.replicated.request`) to ``peer``; its answer.

        Raises NotLeader, Unavailable (it never arrived), OutcomeUnknown, what the peer raised.
        """
        ...


class LeaderRequests:
    """Implements the calls of :class:`~quorumlog.replicated.group.Group`. In the event loop."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        machine: GroupMachine,
        replica: Callable[[], Replica],
        calls: LeaderCalls,
        address_of: Callable[[NodeId], str | None],
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """``replica`` gives the present one, or raises Unavailable while there is none."""
        self._node_id = node_id
        self._machine = machine
        self._replica = replica
        self._calls = calls
        self._address_of = address_of
        self._new_id = new_id
        self._moved: asyncio.Future[Any] | None = None

    def leader_moved(self) -> None:
        """What was sent to the leader of before is not waited for any longer."""
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    # -- what the program asks -----------------------------------------------------------------

    async def propose(
        self,
        command: bytes,
        *,
        request_id: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        forward: bool = True,
    ) -> bytes:
        """See :meth:`quorumlog.replicated.group.Group.propose`."""
        tried = _Tries(asyncio.get_running_loop().time() + timeout_s)
        name = (self._new_id() if request_id is None else request_id).encode()
        proposal = UserCommand(name, self._machine.index, bytes(command))
        while True:
            body = proposal.encode()
            outcome = await tried.until_answered(partial(self._propose_once, body, forward))
            if outcome.verdict is not Verdict.FORGOTTEN:
                return outcome.result()
            if tried.is_in_doubt:
                raise OutcomeUnknown(
                    "so many requests came since the first try that its result is forgotten"
                ) from tried.last
            # It was not done in this call: this node was only far behind when the call began.
            proposal = UserCommand(name, outcome.index, proposal.body)

    async def read(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """See :meth:`quorumlog.replicated.group.Group.read`."""
        tried = _Tries(asyncio.get_running_loop().time() + timeout_s)
        try:
            await tried.until_answered(self._read_once)
        except OutcomeUnknown as error:
            raise Unavailable(f"no current read in {timeout_s} s: {error}") from error

    async def _propose_once(self, body: bytes, forward: bool) -> Outcome:
        replica = self._usable()
        if replica.serving:
            return await self._propose_here(body)
        leader = self._leader_of(replica)
        if not forward:
            raise _StayHere(NotLeader(leader=self._address_of(leader)))
        return Outcome.decode(await self._forward(leader, PROPOSE + body))

    async def _read_once(self) -> None:
        replica = self._usable()
        if replica.serving:
            await replica.read_barrier()
            return
        index = decode_index(await self._forward(self._leader_of(replica), READ))
        await self._machine.wait_applied(index)

    async def _propose_here(self, body: bytes) -> Outcome:
        outcome = await self._replica().propose(Draft.of(body, kind=Kind.COMMAND))
        if not isinstance(outcome, Outcome):
            raise ProtocolError("only commands of the user are proposed this way")
        return outcome

    def _usable(self) -> Replica:
        replica = self._replica()
        failure = replica.failure
        if isinstance(failure, Corrupt):
            raise Unavailable(f"this replica starts over from its peers: {failure}") from failure
        if failure is not None:
            raise LogFenced(f"this replica has stopped: {failure}") from failure
        return replica

    def _leader_of(self, replica: Replica) -> NodeId:
        leader = replica.core.leader_id
        if leader is None or leader == self._node_id:
            raise Unavailable("there is no leader now")
        return leader

    async def _forward(self, leader: NodeId, request: bytes) -> bytes:
        """Ask ``leader``, until another one is known: this one may hang."""
        if self._moved is None or self._moved.done():
            self._moved = asyncio.get_running_loop().create_future()
        moved = self._moved
        call: asyncio.Future[Any] = asyncio.ensure_future(self._calls.propose(leader, request))
        try:
            await asyncio.wait((call, moved), return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise OutcomeUnknown("another node leads by now and that one never answered")
            return bytes(call.result())
        except DiskFull as error:
            raise Unavailable(f"the leader's disk is full: {error}") from error
        except StorageError as error:
            # Another one may lead before long.
            raise OutcomeUnknown(f"the leader failed: {error}") from error
        finally:
            call.add_done_callback(_note)
            call.cancel()

    # -- what other nodes ask ------------------------------------------------------------------

    async def answer(self, request: bytes) -> bytes:
        """Do what another node asks of the leader.

        Raises:
            NotLeader, Unavailable, OutcomeUnknown, ProtocolError, StorageError.
            TimeoutError: not committed in time.
        """
        kind, body = request[:1], request[1:]
        async with asyncio.timeout(DEFAULT_TIMEOUT_S):
            if kind == PROPOSE:
                if not isinstance(decode_command(body), UserCommand):
                    raise ProtocolError("only commands of the user are proposed this way")
                return (await self._propose_here(body)).encode()
            if kind == READ:
                index: Index = await self._replica().read_barrier()
                return encode_index(index)
        raise ProtocolError(f"an unknown request: {kind!r}")


def _note(call: "asyncio.Future[Any]") -> None:
    """Look at the exception: nobody waits for this answer any more."""
    if not call.cancelled():
        call.exception()


class _StayHere(Exception):
    """Not to be tried again, though the error it carries says that that might help."""

    def __init__(self, error: QuorumlogError) -> None:
        self.error = error


class _Tries:
    """One call of the program, until its time is over."""

    def __init__(self, deadline_s: float) -> None:
        self.is_in_doubt = False
        """Whether a try may have had an effect, or may yet have one."""
        self.last: QuorumlogError | None = None
        self._deadline_s = deadline_s

    async def until_answered(self, once: Callable[[], Awaitable[T]]) -> T:
        """Call ``once`` until it answers.

        Raises:
            OutcomeUnknown: not in time, and a try may have had an effect.
            Unavailable: not in time, and none had. What cannot be tried again.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._deadline_s):
                    return await once()
            except TimeoutError:
                self.is_in_doubt = True
                self.last = OutcomeUnknown("no answer in time")
            except _StayHere as stay:
                if not self.is_in_doubt:
                    raise stay.error from None
                self.last = stay.error
            except OutcomeUnknown as error:
                self.is_in_doubt, self.last = True, error
            except QuorumlogError as error:
                self.last = error
                if not error.retryable:
                    self._give_up(error)
            if loop.time() + _RETRY_S >= self._deadline_s:
                self._give_up(Unavailable(f"not in time: {self.last}"))
            await asyncio.sleep(_RETRY_S)

    def _give_up(self, error: QuorumlogError) -> None:
        if self.is_in_doubt:
            raise OutcomeUnknown(
                f"the command may have been applied, or may yet be: {self.last}"
            ) from self.last
        raise error from self.last
