"""A log beside a list: what may be found after a crash, and what must be."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from quorumlog.errors import DiskFull, StorageError
from quorumlog.log.batch import Batch, decode_header
from quorumlog.log.config import FSYNC_ALWAYS, LogConfig
from quorumlog.log.log import Log
from sim.disk import SimDisk
from stored.batches import SMALL, FixedClock, append, content, open_log, plain

T = TypeVar("T")

Plain = list[tuple[bytes, bytes]]


class TakenBack(Exception):
    """The disk was full, and the scenario cannot go on: its batches are not there."""


class TrackedLog:
    """A log and all states it may be found in if it dies now.

    Attributes:
        state: every batch from index 1 on that the log has or had before retention took it.
        written: what may be found when the process dies.
        legal: what may be found when the power is cut.
        starts: what may be found as the first offset that is not deleted.
        floor: the highest index that was said to be committed.
        removed_to: the first index that was left when segments were last removed.
        freed: how often the disk was full, and was given space then.
        takes_back: what waits when the disk is full is truncated away, and the scenario ends.
    """

    def __init__(
        self, disk: SimDisk, config: LogConfig = SMALL, *, takes_back: bool = False
    ) -> None:
        self.disk = disk
        self.config = config
        self.clock = FixedClock()
        self.log: Log = open_log(disk, config, self.clock)
        self.state: Plain = content(self.log)
        self.written: list[Plain] = [self.state]
        self.legal: list[Plain] = [self.state]
        self.starts = {int(self.log.start_offset)}
        self.floor = 0
        self.removed_to = 1
        self.freed = 0
        self.takes_back = takes_back
        self._last_values: Sequence[bytes] = ()

    def append(self, count: int = 1, term: int = 1, values: Sequence[bytes] = (b"value",)) -> None:
        self._last_values = values
        base = len(self.state)
        batches: list[Batch] = append(self.log, count, term, values)
        self.state = self.state + plain(batches)
        self._may_be([self.state[:length] for length in range(base + 1, len(self.state) + 1)])

    def truncate(self, from_index: int) -> None:
        """Segments are removed from the end one by one: every length in between may be found."""
        old = self.state
        self.log.truncate(from_index)
        self.state = old[: from_index - 1]
        self._may_be([old[:length] for length in range(from_index - 1, len(old))])

    def commit(self, index: int) -> None:
        self.log.advance_commit_floor(index)
        self.floor = max(self.floor, index)

    def roll(self) -> None:
        self.log.roll()

    def delete_before(self, offset: int) -> None:
        self.log.advance_start(offset)
        self.starts.add(offset)

    def remove_deleted(self) -> None:
        try:
            self.log.remove_deleted()
        except StorageError:
            # The disk refused once; what is left is removed by the next call.
            self.log.remove_deleted()
        self.removed_to = self.log.start_index

    def flush(self) -> None:
        """Whatever was legal before, only what is there now is legal afterwards."""
        try:
            flushed = self._with_space(self.log.flush)
        except DiskFull:
            self._take_back()
            raise TakenBack from None
        assert flushed.last_index == len(self.state)
        self.written = [self.state]
        if self.config.fsync == FSYNC_ALWAYS:
            self.legal = [self.state]
        self.starts = {int(self.log.start_offset)}

    def sync(self) -> None:
        try:
            self._with_space(self.log.sync)
        except DiskFull:
            self._take_back()
            raise TakenBack from None
        self._is_durable()

    def reopen(self) -> None:
        """Close it cleanly and open it again."""
        try:
            self.log.close()
        except DiskFull:
            # What waited for space is gone, what was written is not.
            self._free()
            self.die()
            return
        self._is_durable()
        self.log = open_log(self.disk, self.config, self.clock)
        assert self.log.recovery.was_closed
        assert content(self.log) == self.state[self.log.start_index - 1 :]

    def die(self) -> None:
        """The process dies and another one opens the log: what that finds is durable."""
        self.log = open_log(self.disk, self.config, self.clock)
        check_found(self.log, self, power_cut=False)
        self.state = self.state[: self.log.start_index - 1] + content(self.log)
        self.floor = self.log.commit_floor
        # A start that was never synced is found, and may be lost yet.
        starts = self.starts
        self._is_durable()
        self.starts |= starts

    def _may_be(self, states: list[Plain]) -> None:
        self.written = self.written + states
        self.legal = self.legal + states

    def _is_durable(self) -> None:
        self.written = self.legal = [self.state]
        self.starts = {int(self.log.start_offset)}

    def _with_space(self, action: Callable[[], T]) -> T:
        """What ``action`` returns; when the disk is full, after it has got space."""
        try:
            return action()
        except DiskFull:
            self._free()
            if self.takes_back:
                raise
            return action()

    def _take_back(self) -> None:
        """What an embedded log does on a full disk; then one of the batches comes again."""
        self.takes_back = False
        kept = max(self.log.durable_index, self.log.commit_floor)
        if kept < len(self.state):
            self.truncate(self.disk.rng.randrange(kept, len(self.state)) + 1)
        self.append(1, max(self.log.last_term, 1), self._last_values)
        self.flush()

    def _free(self) -> None:
        self.disk.capacity_bytes = None
        self.freed += 1


def check_found(log: Log, tracked: TrackedLog, *, power_cut: bool) -> None:
    """Raise unless ``log``, opened after ``tracked`` died, is one of what it may be."""
    first = log.start_index
    found = content(log)
    states = tracked.legal if power_cut else tracked.written
    reaching = [state for state in states if len(state) >= first - 1]
    matching = [state for state in reaching if state[first - 1 :] == found]
    assert matching, f"{len(found)} batches from {first} on are none of {len(states)} legal states"
    assert log.start_offset in tracked.starts, f"{log.start_offset} not in {tracked.starts}"
    assert first >= tracked.removed_to
    if first > 1:
        removed = decode_header(matching[0][first - 2][0])
        assert removed.next_offset <= log.start_offset
    assert log.commit_floor <= max(tracked.floor, first - 1)
    assert [header.index for header in log.headers(first)] == list(range(first, first + len(found)))


def check_goes_on(disk: SimDisk, log: Log, config: LogConfig = SMALL) -> None:
    """Raise unless ``log`` takes more, and is the same after another death and a clean stop."""
    found = content(log) + plain(append(log, 3, term=99, values=[b"after" * 20]))
    start_offset = log.start_offset
    log.flush()
    disk.kill()
    again = open_log(disk, config)
    assert content(again) == found
    assert again.recovery.cut_bytes == 0
    again.close()
    again = open_log(disk, config)
    assert again.recovery.was_closed
    assert content(again) == found
    assert again.start_offset == start_offset
    again.close()
