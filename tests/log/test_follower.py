"""Reading a log that another process writes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from itertools import compress, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quorumlog
from quorumlog.embedded import EmbeddedLog
from quorumlog.embedded.background import Stop
from quorumlog.embedded.following import LogFollower
from quorumlog.embedded.options import Options
from quorumlog.errors import (
    Closed,
    ConfigError,
    Corrupt,
    InvalidArgument,
    KeyMissing,
    OffsetOutOfRange,
    StorageError,
    UnusableDirectory,
)
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.config import LogConfig
from quorumlog.log.following.follower import FollowedLog
from quorumlog.log.key_ring import KeyRing, write_new_key
from quorumlog.log.leftovers import settle_leftovers
from quorumlog.log.paths import (
    compacted_name,
    compacted_range_of,
    first_indexes_of,
    segment_name,
)
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.view import LogView
from quorumlog.types import Index, Offset, Record, Term
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import FixedClock, append, open_log

DIRECTORY = "data"
COMPACTED = Options(compaction=Compaction(min_dirty_ratio=0.0, tombstone_delay_s=0))


def opened(disk: SimDisk, fsync: str = "always", keys: KeyRing | None = None) -> EmbeddedLog:
    # No cache: it would hold, for the writer alone, what compaction has removed.
    config = LogConfig(
        segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=0, fsync=fsync, keys=keys
    )
    return EmbeddedLog(disk, DIRECTORY, config, FixedClock(), COMPACTED)


def follower_of(disk: SimDisk, keys: KeyRing | None = None) -> LogFollower:
    return LogFollower(FollowedLog(disk, DIRECTORY, FixedClock(), keys), 0.05, Stop())


def fill(log: EmbeddedLog, records: int) -> None:
    for _ in range(records):
        number = log.end_offset
        log.append(b"%d" % number * 20, key=b"%d" % (number % 3))


class Steps(Stop):
    """Runs ``steps`` one after the other where a follower would wait, then says stop."""

    def __init__(self, steps: Iterator[object]) -> None:
        super().__init__()
        self._steps = steps

    def wait(self, timeout: float) -> bool:
        return next(self._steps, self) is self


def test_a_follower_sees_what_was_there_and_what_comes() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 5)
    follower = follower_of(disk)
    assert list(follower.read()) == list(log.read())
    fill(log, 40)
    assert (follower.start_offset, follower.end_offset) == (0, 45)
    records = list(log.read())
    assert list(follower.read()) == records
    assert list(follower.read(7, end=33)) == records[7:33]
    assert list(follower.read(7, end=33, reverse=True)) == records[7:33][::-1]
    assert follower.offset_for_time(0) == 0
    with pytest.raises(OffsetOutOfRange, match=r"\[0, 45\)"):
        follower.read(46)
    with pytest.raises(InvalidArgument, match="not both"):
        follower.read(follow=True, reverse=True)


def test_a_following_read_waits_and_goes_on_over_every_change() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 3)

    def changes() -> Iterator[object]:
        nonlocal log
        yield fill(log, 1)
        yield fill(log, 30)
        yield log.housekeep()
        yield None
        yield fill(log, 2)
        log.close()
        yield None
        log = opened(disk)
        yield fill(log, 20)
        disk.locked.clear()
        log = opened(disk)
        yield fill(log, 5)
        yield log.delete_before(30)
        yield fill(log, 5)

    follower = LogFollower(FollowedLog(disk, DIRECTORY, FixedClock()), 0.05, Steps(changes()))
    offsets = [record.offset for record in follower.read(follow=True)]
    assert offsets == list(range(66))


@settings(max_examples=60, deadline=None)
@given(
    actions=st.lists(
        st.sampled_from(
            ["append", "fill", "look", "read", "delete", "compact", "reopen", "kill", "roll"]
        ),
        max_size=30,
    ),
    seed=st.integers(0, 1000),
)
def test_whatever_the_writer_does_a_follower_shows_what_the_writer_has(
    actions: list[str], seed: int
) -> None:
    rng = Random(seed)
    disk = SimDisk(Random(seed))
    log = opened(disk)
    follower = follower_of(disk)
    for action in [*actions, "read"]:
        if action == "append":
            fill(log, 1)
        elif action == "fill":
            fill(log, rng.randrange(25))
        elif action == "look":
            assert follower.end_offset == log.end_offset
        elif action == "delete":
            log.delete_before(rng.randint(log.start_offset, log.end_offset))
        elif action == "compact":
            assert log.housekeep().errors == ()
        elif action == "roll":
            log.source.roll()
            log.flush()
        elif action in ("reopen", "kill"):
            if action == "reopen":
                log.close()
            else:
                # Dead is who does nothing any more. (SimDisk.kill would take the follower along.)
                disk.locked.clear()
            log = opened(disk)
        elif action == "read":
            assert follower.end_offset == log.end_offset
            records = list(log.read())
            assert follower.start_offset == log.start_offset
            assert list(follower.read()) == records
            assert list(follower.read(reverse=True)) == records[::-1]
            if records:
                start = rng.choice(records).offset
                assert next(follower.read(start)).offset == start


def test_a_follower_that_lags_is_told_what_was_deleted() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 40)
    follower = follower_of(disk)
    reader = follower.read()
    assert next(reader).offset == 0
    log.delete_before(35)
    with pytest.raises(OffsetOutOfRange, match=r"\[35, 40\)"):
        list(reader)
    with pytest.raises(OffsetOutOfRange, match=r"\[35, 40\)"):
        follower.read(3)


def test_a_read_that_has_begun_survives_compaction() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 60)
    follower = follower_of(disk)
    reader = follower.read()
    before = [next(reader).offset for _ in range(3)]
    assert log.housekeep().compaction is not None
    kept = [record.offset for record in log.read()]
    seen = before + [record.offset for record in reader]
    assert seen == sorted(set(seen))
    assert set(kept) <= set(seen)


def test_what_is_not_synced_is_not_shown() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk, fsync="never")
    follower = follower_of(disk)
    log.append(b"x")
    assert log.end_offset == 1
    assert follower.end_offset == 0
    log.flush()
    assert [record.value for record in follower.read()] == [b"x"]


@pytest.mark.parametrize("is_power_cut", [False, True])
def test_a_torn_tail_is_never_shown(is_power_cut: bool) -> None:
    """The writer dies at every disk call; whoever looks then sees a prefix that stays."""
    for change in range(1, 60):
        disk = SimDisk(Random(change))
        log = opened(disk)
        fill(log, 2)
        disk.crash_before(change)
        try:
            fill(log, 12)
            log.close()
            break
        except SimulatedCrash:
            pass
        if is_power_cut:
            disk.crash()
        else:
            disk.kill()
        follower = follower_of(disk)
        shown = list(follower.read())
        # After a power cut the mark is one flush behind; the writer that comes back makes it good.
        assert len(shown) >= (1 if is_power_cut else 2)
        log = opened(disk)
        assert list(log.read())[: len(shown)] == shown
        fill(log, 3)
        assert follower.end_offset == log.end_offset
        assert list(follower.read()) == list(log.read())
    else:
        pytest.fail("the scenario has more disk calls than this test looks at")


def test_a_follower_changes_nothing_and_takes_no_lock() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 30)
    log.close()
    for name in disk.list_directory(DIRECTORY):
        if name.endswith(".index"):
            disk.remove(f"{DIRECTORY}/{name}")
    changes, names = disk.changes, disk.list_directory(DIRECTORY)
    follower = follower_of(disk)
    assert len(list(follower.read())) == 30
    assert len(list(follower.read(11, reverse=True))) == 19
    follower.close()
    assert (disk.changes, disk.list_directory(DIRECTORY)) == (changes, names)
    assert disk.locked == set()


def test_a_look_at_a_log_that_stands_still_is_two_reads() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 30)
    followed = FollowedLog(disk, DIRECTORY, FixedClock())
    assert not followed.refresh()
    before = disk.calls.copy()
    assert not followed.refresh()
    assert disk.calls - before == {"read": 2}


def test_a_read_lists_the_directory_only_when_names_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 60)
    listings = 0
    list_directory = disk.list_directory

    def counted(path: str) -> list[str]:
        nonlocal listings
        listings += 1
        return list_directory(path)

    followed = FollowedLog(disk, DIRECTORY, FixedClock())
    monkeypatch.setattr(disk, "list_directory", counted)
    before = disk.calls.copy()
    followed.renew()
    assert (disk.calls - before, listings) == ({"read": 2}, 0)
    fill(log, 1)
    followed.renew()
    assert (followed.end_offset, listings) == (61, 0)
    log.close()
    followed.renew()
    assert not followed.refresh()
    listings = 0
    followed.renew()
    assert not followed.refresh()
    assert listings == 0, "nor where the last segment has come to its end"
    log = opened(disk)
    log.housekeep()
    listings = 0
    followed.renew()
    assert listings == 1
    follower = LogFollower(followed, 0.05, Stop())
    assert list(follower.read()) == list(log.read())
    disk.is_settled = False
    listings = 0
    followed.renew()
    assert listings == 1


def test_a_segment_that_gets_its_header_after_the_look_is_seen_though_no_name_changes() -> None:
    """The writer stops before each of its disk calls while it makes a segment."""
    added = 0
    for step in range(1, 20):
        disk = SimDisk(Random(1))
        log = open_log(disk, LogConfig(segment_bytes=1024))
        append(log, 3, values=[b"x" * 200])
        log.flush()
        followed: list[FollowedLog] = []
        count = disk.count

        def watched(
            kind: str,
            path: str,
            disk: SimDisk = disk,
            followed: list[FollowedLog] = followed,
            count: Callable[[str, str], None] = count,
            last: int = disk.changes + step,
        ) -> None:
            if disk.changes == last and not followed and kind not in ("read", "open"):
                followed.append(FollowedLog(disk, DIRECTORY, FixedClock()))
            count(kind, path)

        disk.count = watched  # type: ignore[method-assign]
        log.roll()
        append(log, 2, values=[b"y"])
        log.flush()
        if followed:
            added += 1
            followed[0].renew()
            assert followed[0].end_offset == 5
    assert added > 8


def test_while_a_compaction_is_half_in_place_everything_can_be_read() -> None:
    """The compacting writer stops before each of its disk calls."""
    complete = SimDisk(Random(1))
    log = opened(complete)
    fill(log, 60)
    everything = list(log.read())
    before = complete.changes
    log.housekeep()
    steps = complete.changes - before
    kept = list(log.read())
    assert steps > 10
    for step in range(1, steps + 1):
        disk = SimDisk(Random(1))
        log = opened(disk)
        fill(log, 60)
        disk.crash_before(step)
        with pytest.raises(SimulatedCrash):
            log.housekeep()
        disk.kill()
        seen = list(follower_of(disk).read())
        assert [each for each in seen if each in kept] == kept
        assert [each for each in everything if each in seen] == seen


def test_a_compacted_file_that_came_too_late_is_no_part_of_the_log() -> None:
    """What it replaces was deleted, and more behind it: it would stand before a hole."""
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 60)
    compacting = SimDisk(Random(1))
    other = opened(compacting)
    fill(other, 60)
    late: list[tuple[str, bytes]] = []
    remove = compacting.remove

    def removed(path: str) -> None:
        if not late:
            names = [each for each in compacting.list_directory(DIRECTORY) if "compacted" in each]
            late.extend((each, compacting.content(f"{DIRECTORY}/{each}")) for each in names)
        remove(path)

    compacting.remove = removed  # type: ignore[method-assign]
    other.housekeep()
    [(name, content)] = late
    replaced = compacted_range_of(name)
    assert replaced is not None
    begins = [info.base_offset for info in log.source.segments() if info.first_index > replaced[1]]
    log.delete_before(begins[0])
    disk.open(f"{DIRECTORY}/{name}", create=True).write_at(0, [content])
    follower = follower_of(disk)
    assert follower.start_offset == log.start_offset == begins[0]
    assert list(follower.read()) == list(log.read())
    assert list(follower.read(reverse=True)) == list(log.read(reverse=True))
    assert follower.offset_for_time(0) == begins[0]
    with pytest.raises(OffsetOutOfRange):
        follower.read(begins[0] - 1)


def write_header(disk: SimDisk, name: str, first_index: int | None) -> None:
    """A segment file of which only the header counts here; None: it is not written yet."""
    header = (
        b""
        if first_index is None
        else SegmentHeader(Index(first_index), Offset(0), Term(0), 0, 1).encode()
    )
    disk.open(f"{DIRECTORY}/{name}", create=True).write_at(0, [header])


def files_by_first_index(disk: SimDisk, paths: Mapping[Index, str]) -> dict[Index, int]:
    return {first: id(disk.inode(path)) for first, path in paths.items()}


def test_a_follower_takes_the_compacted_files_that_an_open_would_take() -> None:
    """Every set of segments beside every set of compacted files, complete or not."""
    firsts = (1, 3, 5, 7)
    ranges = ((1, 3), (1, 5), (3, 7), (5, 7))
    for there in product((False, True), repeat=len(firsts)):
        for complete in product((None, False, True), repeat=len(ranges)):
            disk = SimDisk(Random(1))
            disk.make_directory(DIRECTORY)
            for first in compress(firsts, there):
                write_header(disk, segment_name(first), first)
            for (first, behind), is_complete in zip(ranges, complete, strict=True):
                if is_complete is not None:
                    name = compacted_name(first, behind)
                    write_header(disk, name, first if is_complete else None)
            followed = {}
            if any(there) or True in complete:
                paths = FollowedLog(disk, DIRECTORY, FixedClock())._paths
                followed = files_by_first_index(disk, paths)
            settle_leftovers(disk, DIRECTORY)
            settled = first_indexes_of(disk.list_directory(DIRECTORY))
            paths = {first: f"{DIRECTORY}/{segment_name(first)}" for first in settled}
            assert followed == files_by_first_index(disk, paths)


def test_a_new_follower_begins_where_the_writer_has_deleted_to_in_the_middle_of_a_segment() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 40)
    bases = [info.base_offset for info in log.source.segments()]
    log.delete_before(bases[2] + 1)
    assert follower_of(disk).start_offset == bases[2] + 1


def test_an_empty_segment_that_is_begun_again_is_followed() -> None:
    ring = KeyRing.generate("2026", Random(1).randbytes)
    disk = SimDisk(Random(1))
    opened(disk).close()
    follower = follower_of(disk, ring)
    assert follower.end_offset == 0
    log = opened(disk, keys=ring)
    fill(log, 3)
    assert follower.end_offset == 3
    assert list(follower.read()) == list(log.read())


def test_what_the_owner_of_a_log_takes_back_is_gone_for_a_follower_too() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk, LogConfig(segment_bytes=1024))
    append(log, 9, values=[b"x" * 200])
    log.flush()
    followed = FollowedLog(disk, DIRECTORY, FixedClock())
    for kept in (7, 2):
        log.truncate(kept + 1)
        log.flush()
        assert followed.refresh()
        assert followed.end_offset == kept
        batches = [batch for several in followed.stream(1) for batch in several]
        assert [batch.header.index for batch in batches] == list(range(1, kept + 1))
    append(log, 1, values=[b"y"])
    log.flush()
    assert followed.refresh()
    assert followed.end_offset == 3
    log.close()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ["index_of_offset", "stream", "batches_before", "offset_for_time"])
def test_damage_is_believed_when_it_is_found_again(
    name: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 3)
    errors = [Corrupt("file", 1, "a batch", "a listing in the middle of a change")] * times
    right = getattr(LogView, name)

    def wrong(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return right(*args)

    followed = FollowedLog(disk, DIRECTORY, FixedClock())
    follower = LogFollower(followed, 0.05, Stop())
    monkeypatch.setattr(LogView, name, wrong)
    use: Callable[[], object] = {
        "index_of_offset": lambda: followed.index_of_offset(0),
        "stream": lambda: len(list(followed.stream(1))),
        "batches_before": lambda: len(list(follower.read(reverse=True))),
        "offset_for_time": lambda: followed.offset_for_time(0),
    }[name]
    if times == 1:
        assert use() is not None
    else:
        with pytest.raises(Corrupt):
            use()
    assert errors == []


def test_an_encrypted_log_is_followed_with_its_keys() -> None:
    ring = KeyRing.generate("2026", Random(1).randbytes)
    disk = SimDisk(Random(1))
    log = opened(disk, keys=ring)
    with pytest.raises(StorageError):
        follower_of(disk)
    follower = follower_of(disk, ring)
    fill(log, 40)
    assert list(follower.read()) == list(log.read())


def test_a_follower_reads_on_under_a_key_that_was_added_to_its_file(tmp_path: Path) -> None:
    keys, directory = str(tmp_path / "keys.toml"), tmp_path / "log"

    def append(*values: bytes) -> None:
        with quorumlog.open(directory, keys=keys) as log:
            for value in values:
                log.append(value)

    today = date(2026, 11, 21)
    write_new_key(keys, "first", today)
    append(b"1", b"2")
    with quorumlog.follow(directory, keys=keys) as follower:
        assert [each.value for each in follower.read()] == [b"1", b"2"]
        behind = follower.read()
        write_new_key(keys, "second", today)
        append(b"3")
        with quorumlog.open(directory, keys=keys) as log:
            log.append(b"4")
            assert follower.end_offset == 4
            write_new_key(keys, "third", today)
        append(b"5")
        assert [each.value for each in follower.read()] == [b"1", b"2", b"3", b"4", b"5"]
        assert next(behind).value == b"1"


def test_a_key_that_is_not_in_the_file_either_is_missing(tmp_path: Path) -> None:
    keys, directory = tmp_path / "keys.toml", tmp_path / "log"
    write_new_key(str(keys), "first", date(2026, 11, 21))
    with quorumlog.open(directory, keys=keys) as log:
        log.append(b"1")
    with quorumlog.follow(directory, keys=keys) as follower:
        elsewhere = tmp_path / "copy.toml"
        elsewhere.write_bytes(keys.read_bytes())
        elsewhere.chmod(0o600)
        write_new_key(str(elsewhere), "second", date(2026, 11, 21))
        with quorumlog.open(directory, keys=elsewhere) as log:
            log.append(b"2")
        for _ in range(2):
            with pytest.raises(KeyMissing, match="'second'"):
                follower.read()
        keys.unlink()
        with pytest.raises(ConfigError, match=r"keys\.toml"):
            follower.read()
        elsewhere.rename(keys)
        assert [each.value for each in follower.read()] == [b"1", b"2"]


def test_rot_is_reported_with_file_and_position() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    fill(log, 30)
    disk.flip_bit(f"{DIRECTORY}/{1:020d}.log", 12288 + 90, 1)
    with pytest.raises(Corrupt) as caught:
        list(follower_of(disk).read())
    assert (caught.value.file, caught.value.position) == (f"{DIRECTORY}/{1:020d}.log", 12288)


def test_a_directory_without_a_log_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path):
        with pytest.raises(UnusableDirectory):
            quorumlog.follow(path)
    assert sorted(os.listdir(tmp_path)) == ["file"]
    with pytest.raises(ConfigError, match="poll_s"):
        quorumlog.follow(tmp_path, poll_s=0)


def test_a_closed_follower_says_so(tmp_path: Path) -> None:
    with quorumlog.open(tmp_path / "log") as log:
        log.append(b"x")
    follower = quorumlog.follow(tmp_path / "log")
    reader = follower.read(follow=True)
    assert next(reader).value == b"x"
    follower.close()
    follower.close()
    assert list(reader) == []
    with pytest.raises(Closed):
        follower.read()


WRITER = """
import sys, quorumlog
log = quorumlog.open(sys.argv[1], segment_bytes=4096)
number = log.end_offset
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        log.append(b"%d" % number * 20)
        number += 1
    print(number, flush=True)
while True:
    log.append(b"%d" % number * 20)
    number += 1
"""


def test_a_writer_in_another_process_is_followed_while_it_runs_and_after_it_was_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    for life in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            with quorumlog.follow(path, poll_s=0.001) as follower:
                begun = follower.end_offset
                assert life == 0 or begun > 0
                writer.stdin.write("100\n")
                writer.stdin.flush()
                _check(follower.read(follow=True, end=begun + 100), 0)
                assert int(writer.stdout.readline()) == begun + 100
                # From here on it appends as fast as it can, until it is killed in the middle.
                writer.stdin.close()
                _check(follower.read(begun + 100, follow=True, end=begun + 400), begun + 100)
                writer.send_signal(signal.SIGKILL)
                writer.wait()
                end = follower.end_offset
                _check(follower.read(), 0)
                with quorumlog.open(path) as log:
                    assert log.end_offset >= end
                    _check(log.read(), 0)
                assert follower.end_offset >= end
        finally:
            writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout):
                if pipe is not None:
                    pipe.close()


def _check(records: Iterator[Record], number: int) -> None:
    """The records from offset ``number`` on hold what the writer put there."""
    for record in records:
        assert (record.offset, record.value) == (number, b"%d" % number * 20)
        number += 1
