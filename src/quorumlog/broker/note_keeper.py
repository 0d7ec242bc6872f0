"""Changes and reads the notes of the partitions that this node leads."""

import asyncio
from collections.abc import Callable
from typing import Final

from quorumlog.broker.led_partition import LedPartition
from quorumlog.broker.note_command import (
    ForgetCheckpoint,
    NoteCommand,
    RaiseFence,
    SetCheckpoint,
    note_draft,
)
from quorumlog.broker.notes import (
    MAX_CHECKPOINTS,
    Notes,
    check_checkpoint_name,
    check_fencing_token,
)
from quorumlog.errors import InvalidArgument, OffsetOutOfRange, OutcomeUnknown, StaleFencingToken
from quorumlog.types import Offset

_COMMIT_TIMEOUT_S: Final = 10.0


Lead = Callable[[str, int], LedPartition]
"""By topic and partition; raises UnknownTopic, PartitionOutOfRange, NotLeader."""


class NoteKeeper:
    """The order in which commands are proposed is that of the log. So what is asked against the
    newest notes that were proposed here is asked against those that stand before it in the log."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead

    def admit(self, led: LedPartition, token: int) -> None:
        """Let an append with ``token`` in, which follows in this turn of the loop: a token that is
        newer than the partition's is noted ahead of it.

        Raises:
            StaleFencingToken: a newer one is known. InvalidArgument: it is none.
        """
        check_fencing_token(token)
        newest = led.machine.latest_notes.fencing_token
        if token < newest:
            raise StaleFencingToken(token, newest)
        if token > newest:
            self._propose(led, RaiseFence(token))

    async def fence(self, topic: str, partition: int, token: int) -> int:
        """See :meth:`quorumlog.broker.port.BrokerPort.fence`."""
        check_fencing_token(token)
        led = self._lead(topic, partition)
        newest = led.machine.latest_notes.fencing_token
        if token < newest:
            raise StaleFencingToken(token, newest)
        notes = await self._committed(self._propose(led, RaiseFence(token)))
        return notes.fencing_token

    async def set_checkpoint(
        self, topic: str, partition: int, name: str, offset: int, rewind: bool
    ) -> int:
        """See :meth:`quorumlog.broker.port.BrokerPort.set_checkpoint`."""
        check_checkpoint_name(name)
        led = self._lead(topic, partition)
        if offset > led.readable[1]:
            # A leader that was deposed and has not heard of it knows an old end.
            await led.read_barrier()
        start, end = led.readable
        if not 0 <= offset <= end:
            raise OffsetOutOfRange(offset, start, end)
        known = led.machine.latest_notes.checkpoints
        if name not in known and len(known) >= MAX_CHECKPOINTS:
            raise InvalidArgument(
                f"partition {partition} of {topic} has {MAX_CHECKPOINTS} checkpoints already: "
                "forget those that nobody reads from any more"
            )
        command = SetCheckpoint(name, Offset(offset), rewind)
        notes = await self._committed(self._propose(led, command))
        return notes.checkpoints[name]

    async def forget_checkpoint(self, topic: str, partition: int, name: str) -> None:
        """See :meth:`quorumlog.broker.port.BrokerPort.forget_checkpoint`."""
        check_checkpoint_name(name)
        led = self._lead(topic, partition)
        await self._committed(self._propose(led, ForgetCheckpoint(name)))

    async def notes(self, topic: str, partition: int) -> Notes:
        """See :meth:`quorumlog.broker.port.BrokerPort.notes`."""
        led = self._lead(topic, partition)
        await led.read_barrier()
        return led.machine.notes

    def _propose(self, led: LedPartition, command: NoteCommand) -> "asyncio.Future[Notes]":
        outcome = led.propose(note_draft(command))
        led.machine.note_appended(command)
        return outcome

    async def _committed(self, outcome: "asyncio.Future[Notes]") -> Notes:
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                return await asyncio.shield(outcome)
        except TimeoutError:
            raise OutcomeUnknown(
                f"it was not committed within {_COMMIT_TIMEOUT_S:g} s: is a majority of the "
                "partition's replicas up?"
            ) from None
