"""Decoders of what replicas say beside Raft, keep beside their logs, and of users' machines."""

from dataclasses import replace
from random import Random
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from fuzz.target import Target, expect
from quorumlog.broker.note_command import ForgetCheckpoint, RaiseFence, SetCheckpoint, decode_note
from quorumlog.broker.notes import Notes
from quorumlog.broker.partition_snapshot import PartitionState
from quorumlog.broker.start_command import StartCommand
from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.replicated.command import TrimCommand, UserCommand, decode_command
from quorumlog.replicated.outcome import Outcome, Verdict
from quorumlog.replicated.remembered import Remembered
from quorumlog.replicated.state import GroupState, decode_state, encode_state
from quorumlog.replication.catch_up import messages as catch_up
from quorumlog.replication.catch_up.messages import (
    ChunkAnswer,
    EndAnswer,
    EndQuestion,
    StateChunk,
    StateId,
)
from quorumlog.replication.catch_up.starting_over import NOTE_NAME, Note, read_note, write_note
from quorumlog.replication.sleep import beat as beats
from quorumlog.replication.sleep.beat import Beat, Fell, Woke
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import GroupId, Index, Offset, Term
from sim.disk import SimDisk

_NOTE_PATH: Final = f"group/{NOTE_NAME}"
_NOTE_CRC_AT: Final = 4
_NOTE_CHECKED_AT: Final = 8
_NOTE_HEAD_BYTES: Final = 24


# -- between replicas ----------------------------------------------------------------------------


def _beats() -> list[bytes]:
    fell = (Fell(GroupId(1), Term(2), Index(3)), Fell(GroupId(4), Term(5), Index(6)))
    woke = (Woke(GroupId(7)), Woke(GroupId(8), 9))
    return [
        beats.encode(Beat(1, 2)),
        beats.encode(Beat(1, 2, 3, 4, fell, woke, True)),
        beats.encode(Beat(1, 2, 3, 4, (), woke)),
    ]


def _check_beat(data: bytes) -> None:
    expect(beats.encode(beats.decode(data)) == data, "a beat encodes to the bytes it came from")


def _catch_up_messages() -> list[bytes]:
    term, state = Term(3), StateId(Index(4), 100, 5)
    return [
        catch_up.encode(StateChunk(term, state, 10, b"x" * 90)),
        catch_up.encode(ChunkAnswer(term, state, 100)),
        catch_up.encode(EndQuestion(term, 9)),
        catch_up.encode(EndAnswer(term, 9, Index(4))),
    ]


def _check_catch_up(data: bytes) -> None:
    again = catch_up.encode(catch_up.decode(data))
    expect(again == data, "a message encodes to the bytes it came from")


# -- partitions ----------------------------------------------------------------------------------


_NOTED: Final = Notes(7, {"billing": Offset(9), "ü": Offset(0)})


def _partition_states() -> list[bytes]:
    return [
        PartitionState(WHOLE_LOG, 0, b"").encode(),
        PartitionState(LogStart(Offset(9), Index(4)), 7, b"producers").encode(),
        PartitionState(LogStart(Offset(9), Index(4)), 7, b"producers", _NOTED).encode(),
        b"QLT\x01",
    ]


def _check_partition_state(data: bytes) -> None:
    state = PartitionState.decode(data)
    expect(PartitionState.decode(state.encode()) == state, "a state comes back")


def _start_commands() -> list[bytes]:
    command = StartCommand(Offset(9), Index(4), 7)
    return [command.encode(), replace(command, notes=_NOTED).encode()]


def _note_commands() -> list[bytes]:
    commands = (
        RaiseFence(7),
        SetCheckpoint("billing", Offset(9)),
        SetCheckpoint("ü", Offset(0), rewind=True),
        ForgetCheckpoint("billing"),
    )
    return [command.encode() for command in commands]


def _check_note_command(data: bytes) -> None:
    expect(decode_note(data).encode() == data, "a note encodes to the bytes it came from")


def _check_start_command(data: bytes) -> None:
    command = StartCommand.decode(data)
    expect(StartCommand.decode(command.encode()) == command, "a command comes back")


# -- replicas that start over --------------------------------------------------------------------


def _notes() -> list[bytes]:
    images = []
    for note in (Note(1, 2, "rot in segment 3: ü"), Note(0, 0, "", 9)):
        disk = SimDisk(Random(0))
        disk.make_directory("group")
        write_note(disk, "group", note)
        images.append(disk.content(_NOTE_PATH))
    return images


def _check_note(data: bytes) -> None:
    disk = SimDisk(Random(0))
    disk.make_directory("group")
    disk.open(_NOTE_PATH, create=True).write_at(0, [data])
    note = read_note(disk, "group")
    if note is None:
        raise Corrupt(_NOTE_PATH, 0, "a note", "none")
    write_note(disk, "group", note)
    again = read_note(disk, "group")
    # A reason that was no UTF-8 is longer in it, and cut.
    expect(
        again is not None
        and (again.began_ms, again.number, again.settled_index)
        == (note.began_ms, note.number, note.settled_index),
        "a note comes back",
    )


def _repair_note(data: bytes) -> bytes:
    if len(data) < _NOTE_CHECKED_AT + _NOTE_HEAD_BYTES:
        return data
    checked = data[_NOTE_CHECKED_AT:]
    return b"QLR\x01" + crc32c(checked).to_bytes(_NOTE_CRC_AT, "little") + checked


# -- machines of users ---------------------------------------------------------------------------


def _group_states() -> list[bytes]:
    remembered = Remembered()
    remembered.add(b"one", Outcome(Verdict.DONE, Index(3), b"result"))
    remembered.add(b"two", Outcome(Verdict.REFUSED, Index(4), b"no"))
    return [
        encode_state(GroupState(Index(5), Index(2), remembered, b"machine")),
        encode_state(GroupState(Index(0), Index(0), Remembered(), b"")),
    ]


def _check_group_state(data: bytes) -> None:
    expect(encode_state(decode_state(data)) == data, "a state encodes to the bytes it came from")


def _user_commands() -> list[bytes]:
    return [
        UserCommand(b"request", Index(4), b"command").encode(),
        UserCommand(b"r", Index(0), b"").encode(),
        TrimCommand(Index(9)).encode(),
    ]


def _check_user_command(data: bytes) -> None:
    expect(decode_command(data).encode() == data, "a command encodes to the bytes it came from")


def _outcomes() -> list[bytes]:
    return [Outcome(verdict, Index(4), b"payload").encode() for verdict in Verdict]


def _check_outcome(data: bytes) -> None:
    expect(Outcome.decode(data).encode() == data, "an outcome encodes to the bytes it came from")


GROUP_TARGETS: Final = (
    Target("beats", _check_beat, (ProtocolError,), _beats),
    Target("catch-up", _check_catch_up, (ProtocolError,), _catch_up_messages),
    Target("partition-state", _check_partition_state, (ProtocolError,), _partition_states),
    Target("start-command", _check_start_command, (ProtocolError,), _start_commands),
    Target("note-command", _check_note_command, (ProtocolError,), _note_commands),
    Target("recovery-note", _check_note, (Corrupt,), _notes, _repair_note),
    Target("machine-state", _check_group_state, (ProtocolError,), _group_states),
    Target("machine-command", _check_user_command, (ProtocolError,), _user_commands),
    Target("machine-outcome", _check_outcome, (ProtocolError,), _outcomes),
)
