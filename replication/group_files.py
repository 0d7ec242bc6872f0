"""What a node's disk has of its groups: a directory each, named by the group's number, and a list.

Every call blocks.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from quorumlog.errors import Corrupt
from quorumlog.log.batch import Kind
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.install import decide_install
from quorumlog.log.log import Log, LogConfig
from quorumlog.log.state_snapshot import StateSnapshot, load_newest
from quorumlog.ports import Clock, Disk
from quorumlog.replication.catch_up.leaving import finish_leaving, has_left, leave, left_at
from quorumlog.replication.catch_up.starting_over import (
    HARD_STATE_NAME,
    check_has_voted,
    check_kept,
    has_replica,
    is_recovering,
    leftovers_of,
    settle,
    start_over,
)
from quorumlog.replication.core.members import Members
from quorumlog.replication.group_list import GroupList, groups_in
from quorumlog.replication.saved_state import FoundStates
from quorumlog.types import GroupId, Index, NodeId, Term

ConfigEntries = tuple[tuple[Index, Members], ...]

_ANY_INDEX: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class OpenedFiles:
    """What the disk had of a group. ``recovering``: its log was lost, and is not whole yet;
    ``left_at``: because it left the group, which was settled without it through there."""

    log: Log
    hard_state_file: HardStateFile
    hard_state: HardState
    recovering: bool
    left_at: Index | None

    def close(self) -> None:
        """Raises what the log's last flush raises; both are closed all the same."""
        try:
            self.log.close()
        finally:
            self.hard_state_file.close()


class _ListedHardState(HardStateFile):
    """Has the list of groups cover a term before anything is promised in it."""

    def __init__(self, disk: Disk, path: str, cover: Callable[[Term], None]) -> None:
        super().__init__(disk, path)
        self._cover = cover

    def save(self, state: HardState) -> None:
        self._cover(state.term)
        super().save(state)


class GroupFiles:
    """``listed`` has the groups that were here, also those that are lost."""

    def __init__(self, disk: Disk, directory: str, clock: Clock) -> None:
        self._disk = disk
        self._directory = directory
        self._clock = clock
        self.listed = GroupList(disk, directory)

    def path_of(self, group: GroupId) -> str:
        return f"{self._directory}/{group}"

    def open(self, group: GroupId, log_config: LogConfig) -> OpenedFiles:
        """Open the group's log and hard state, made where there is none.

        Raises:
            Corrupt: one of them is damaged, or was taken away; or all of it.
            DiskFull, UnusableDirectory, OSError.
        """
        directory = self.path_of(group)
        settle(self._disk, directory)
        if not has_replica(self._disk, directory):
            self._check_is_new(group)
        self._disk.make_directory(directory)
        check_kept(self._disk, directory)
        # The hard state first: with a damaged one this node must not even look as if it had a log.
        hard_state_file = _ListedHardState(
            self._disk, f"{directory}/{HARD_STATE_NAME}", partial(self.listed.cover, group)
        )
        with ExitStack() as undo:
            undo.callback(hard_state_file.close)
            hard_state = hard_state_file.load()
            if hard_state.term > 0:
                # It may acknowledge in the term that it has, before it saves another one.
                self.listed.cover(group, hard_state.term)
            log = Log.open(self._disk, directory, log_config, self._clock)
            undo.callback(log.close)
            bound = self.listed.term_bound(group)
            if log.last_index > 0:
                check_has_voted(self._disk, directory)
            elif hard_state.term == 0 and bound is not None:
                # A crash came before the first vote was saved, or the file is gone. It acknowledged
                # nothing, and in this term it did not vote.
                hard_state = HardState(bound)
                hard_state_file.save(hard_state)
            undo.pop_all()
        return OpenedFiles(
            log,
            hard_state_file,
            hard_state,
            is_recovering(self._disk, directory),
            left_at(self._disk, directory),
        )

    def may_have_had(self, group: GroupId) -> bool:
        """Whether nothing is here of ``group``, and a list that was lost might have had it."""
        directory = self.path_of(group)
        settle(self._disk, directory)
        if has_replica(self._disk, directory) or self.listed.term_bound(group) is not None:
            return False
        return self.listed.may_lack(group)

    def find_members(
        self,
        group: GroupId,
        log: Log,
        found: FoundStates,
        initial: Members,
        node_id: NodeId,
        needs_saved_state: bool,
    ) -> tuple[Members, ConfigEntries]:
        """The configuration before those in ``log`` behind what was restored; and these. Blocks.

        It is that of the state which the replica has or will take. Without one it is ``initial``,
        if ``log`` is whole; else what the newest state on disk says, though the state machine could
        not use it. (A configuration is in a saved state before its batch is removed.)

        Args:
            needs_saved_state: nothing of the log is removed before a state is saved, so that one
                which is not there was lost; without it none may ever have been made.

        Raises:
            Corrupt: all that may say it is damaged, or gone. ``initial`` may be of long ago, and
                have no member in common with today's majorities; it only does for who is alone in
                it, and has a use for a log without a state.
            StorageError: the log cannot be read.
        """
        entries = configurations_in(log, found.restored)
        known = found.restored or found.awaited
        is_lost = False
        if known is None and log.start_index > 1:
            newest = load_newest(self._disk, self.path_of(group), _ANY_INDEX)
            known = newest.snapshot
            # From a state at the start on, the log itself says what followed.
            may_be_missed = needs_saved_state or bool(newest.damage)
            is_lost = may_be_missed and (known is None or known.index < log.start_index - 1)
        if is_lost and entries:
            # What holds is known; what would hold again, were it cut off, is not.
            return Members(()), entries
        if is_lost and (needs_saved_state or initial.voting != (node_id,)):
            raise Corrupt(
                self.path_of(group), 0, "a saved state with the configuration", "none that is whole"
            )
        if is_lost or known is None or not known.configuration:
            return initial, entries
        return Members.decode(known.configuration), entries

    def decide_install(self, group: GroupId) -> None:
        """See :func:`quorumlog.log.install.decide_install`."""
        decide_install(self._disk, self.path_of(group))

    def start_over(self, group: GroupId, reason: str) -> str | None:
        """See :func:`~quorumlog.replication.catch_up.starting_over.start_over`."""
        bound = self.listed.term_bound(group)
        beyond = None if bound is None else HardState(bound)
        return start_over(self._disk, self.path_of(group), reason, self._clock.wall_ms(), beyond)

    def leave(self, group: GroupId, settled_index: Index) -> None:
        """See :func:`~quorumlog.replication.catch_up.leaving.leave`."""
        leave(self._disk, self.path_of(group), settled_index, self._clock.wall_ms())

    def stored(self) -> list[GroupId]:
        """The groups that there is data of, or was, and nobody deleted it; sorted."""
        if self._disk.exists(self._directory):
            finish_leaving(self._disk, self._directory)
        return sorted({*groups_in(self._disk, self._directory), *self.listed.groups()})

    def left(self) -> list[GroupId]:
        """Those of :meth:`stored` that only have term and vote, sorted."""
        self.stored()
        there = groups_in(self._disk, self._directory)
        return [group for group in there if has_left(self._disk, self.path_of(group))]

    def remove(self, group: GroupId) -> None:
        """Delete all that there is of the group, durably."""
        if self._disk.exists(self._directory):
            path = self.path_of(group)
            # The live one last: a restart in between finds by it that there is something to remove.
            for each in (*leftovers_of(self._disk, path), path):
                if self._disk.exists(each):
                    self._disk.remove_directory(each)
                    self._disk.sync_directory(self._directory)
        self.listed.forget(group)

    def _check_is_new(self, group: GroupId) -> None:
        """Raise Corrupt where the group, of which there is nothing, was here, or may have been."""
        bound, path = self.listed.term_bound(group), self.path_of(group)
        if bound is not None:
            raise Corrupt(path, 0, "the directory of a replica that was here", "none")
        if self.listed.may_lack(group):
            raise Corrupt(
                path,
                0,
                "the directory of a replica that may have been here before the list of groups was "
                "lost (move it to another node, or replace this node by a new one)",
                "none",
            )


def configurations_in(log: Log, restored: StateSnapshot | None) -> ConfigEntries:
    """Those in the log behind what was restored, with their indexes."""
    first_index = log.start_index if restored is None else restored.index + 1
    return tuple(
        (header.index, Members.decode(log.slice(header.index, 1)[0].body))
        for header in log.headers(first_index)
        if header.kind is Kind.CONFIG
    )
