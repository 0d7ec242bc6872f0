"""An empty log that begins in the middle: for a replica that is given another one's state.

What the other replica's log does not have any more cannot be sent as batches. So its present state
comes instead (:class:`quorumlog.log.state_snapshot.StateSnapshot` with a ``origin``), and this
log is emptied to begin where that one does. The file is written as ``install.new``, synced and
renamed to ``<20 digits of index>.install``: that name, once durable, is the decision. The next open
carries it out before it looks into any segment: it removes segments, indexes and older states,
makes an empty segment that begins at ``origin``, and renames the file to
``<20 digits of index>.state``. A crash anywhere leaves the log as it was, or one that is emptied
again; nothing can have been appended in between.
"""

from collections.abc import Sequence
from typing import Final

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.config import LogConfig
from quorumlog.log.paths import (
    COMPACTED_SUFFIX,
    INDEX_SUFFIX,
    REMADE_SUFFIX,
    SEGMENT_SUFFIX,
    parent_of,
    segment_name,
)
from quorumlog.log.segment import first_mark, reserve_segment, write_first_pages
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.state_snapshot import (
    LogOrigin,
    StateSnapshot,
    read_snapshot,
    snapshot_index_of,
    snapshot_name,
)
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index, Offset, Term

DRAFT_NAME: Final = "install.new"
INSTALL_SUFFIX: Final = ".install"

WHOLE_LOG: Final = LogOrigin(Index(1), Offset(0), Term(0), 0, Offset(0))
"""Where a log begins of which nothing was deleted."""

_STATE_SUFFIX: Final = ".state"
_OF_THE_LOG: Final = (SEGMENT_SUFFIX, INDEX_SUFFIX, COMPACTED_SUFFIX, REMADE_SUFFIX)


def decide_install(disk: Disk, directory: str) -> StateSnapshot:
    """Let the draft in ``directory`` take the place of the log at the next open.

    Nobody may have the log open. Durable when it returns. Blocks.

    Raises:
        StorageError: the draft is damaged, or says nothing of a log's start; it was removed.
        OSError: of the disk. Whether it is decided is known at the next open.
    """
    draft = f"{directory}/{DRAFT_NAME}"
    try:
        state = read_snapshot(disk, draft)
        if state.origin is None:
            raise StorageError(f"{draft}: the state does not say where its log begins")
    except StorageError:
        disk.remove(draft)
        raise
    file = disk.open(draft)
    try:
        file.sync()
    finally:
        file.close()
    disk.rename(draft, f"{directory}/{install_name(state.index)}")
    disk.sync_directory(directory)
    return state


def settle_install(
    disk: Disk, directory: str, names: Sequence[str], clock: Clock, config: LogConfig
) -> bool:
    """Carry out what was decided, if anything was; whether it was. Durable when it returns.

    ``names`` are those in ``directory``.

    Raises:
        Corrupt: the state is damaged, and of the log perhaps something was removed already.
    """
    decided = [name for name in names if install_index_of(name) is not None]
    if not decided:
        return False
    # Who renamed it may have died before the sync: nothing is removed for a name that can vanish.
    disk.sync_directory(directory)
    name = max(decided)
    state, start = _read(disk, f"{directory}/{name}", install_index_of(name))
    for other in names:
        if is_emptied(other) or (other in decided and other != name):
            disk.remove(f"{directory}/{other}")
    disk.sync_directory(directory)
    create_first_segment(disk, directory, clock, config, start)
    disk.rename(f"{directory}/{name}", f"{directory}/{snapshot_name(state.index)}")
    disk.sync_directory(directory)
    return True


def create_first_segment(
    disk: Disk, directory: str, clock: Clock, config: LogConfig, start: LogOrigin
) -> None:
    """Make the only segment of a log without batches, durably."""
    path = f"{directory}/{segment_name(start.start_index)}"
    file = reserve_segment(disk, path)
    try:
        header = SegmentHeader(
            start.start_index,
            start.base_offset,
            start.prev_term,
            start.prev_timestamp_ms,
            clock.wall_ms(),
        )
        _, header = SegmentCipher.create(config.keys, header)
        # What stood before was committed. The start offset may lie behind the end of an empty
        # log: that is for the owner to say, once it has the batches up to there.
        mark = first_mark(header, Index(start.start_index - 1), start.base_offset)
        write_first_pages(file, header, mark, file.sync)
    finally:
        file.close()
    disk.sync_directory(parent_of(path))


def is_emptied(name: str) -> bool:
    """Whether ``name`` is one of the files that go when the log is emptied."""
    is_state = snapshot_index_of(name) is not None
    return is_state or name.endswith(_OF_THE_LOG)


def install_name(index: int) -> str:
    return snapshot_name(index).removesuffix(_STATE_SUFFIX) + INSTALL_SUFFIX


def install_index_of(name: str) -> int | None:
    """The index in the name of a decided install; None when ``name`` is not that of one."""
    if not name.endswith(INSTALL_SUFFIX):
        return None
    return snapshot_index_of(name.removesuffix(INSTALL_SUFFIX) + _STATE_SUFFIX)


def find_damage(disk: Disk, directory: str, names: Sequence[str]) -> tuple[str, str] | None:
    """The path of a decided install that is damaged, and what is wrong with it. Changes nothing."""
    for name in names:
        index = install_index_of(name)
        if index is None:
            continue
        try:
            _read(disk, f"{directory}/{name}", index)
        except (Corrupt, OSError) as error:
            return f"{directory}/{name}", str(error)
    return None


def _read(disk: Disk, path: str, index: int | None) -> tuple[StateSnapshot, LogOrigin]:
    try:
        state = read_snapshot(disk, path, index)
    except StorageError as error:
        raise Corrupt(path, 0, "the state that takes the log's place", str(error)) from error
    if state.origin is None:
        raise Corrupt(path, 0, "where its log begins", "a state that was made here")
    return state, state.origin
