"""An embedded log backwards, with deletion, compaction, compression and keys, and over a fork."""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quorumlog
from quorumlog.embedded import EmbeddedLog
from quorumlog.embedded.options import Options
from quorumlog.errors import (
    Closed,
    ConfigError,
    InvalidArgument,
    LogLocked,
    OffsetOutOfRange,
    StorageError,
)
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.config import LogConfig
from quorumlog.log.key_ring import KeyRing
from sim.disk import SimDisk
from stored.batches import FixedClock

DIRECTORY = "data"


def opened(
    disk: SimDisk,
    options: Options | None = None,
    *,
    tail_cache_bytes: int = 500,
    keys: KeyRing | None = None,
) -> EmbeddedLog:
    config = LogConfig(
        segment_bytes=2048,
        index_interval_bytes=256,
        tail_cache_bytes=tail_cache_bytes,
        keys=keys,
    )
    return EmbeddedLog(disk, DIRECTORY, config, FixedClock(), options)


def filled(records: int, options: Options | None = None) -> tuple[SimDisk, EmbeddedLog]:
    disk = SimDisk(Random(1))
    log = opened(disk, options)
    for number in range(records):
        log.append(b"%d" % number * 30, key=b"%d" % (number % 3))
    return disk, log


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]


@given(
    batches=st.lists(st.integers(1, 6), max_size=25),
    tail_cache_bytes=st.sampled_from([0, 500, 100_000]),
    bounds=st.tuples(st.integers(0, 160), st.integers(0, 160)),
)
def test_backwards_is_forwards_reversed(
    batches: list[int], tail_cache_bytes: int, bounds: tuple[int, int]
) -> None:
    log = opened(SimDisk(Random(1)), tail_cache_bytes=tail_cache_bytes)
    number = count()
    for size in batches:
        log.append_batch([b"%d" % next(number) * 20 for _ in range(size)])
    start, end = min(bounds[0], log.end_offset), bounds[1]
    forwards = list(log.read(start, end=end))
    assert [record.offset for record in forwards] == list(range(start, min(end, log.end_offset)))
    assert list(log.read(start, end=end, reverse=True)) == forwards[::-1]
    log.close()


def test_following_backwards_is_refused_at_once() -> None:
    _, log = filled(1)
    with pytest.raises(InvalidArgument, match="not both"):
        log.read(follow=True, reverse=True)


def test_what_is_deleted_cannot_be_read_and_its_segments_go() -> None:
    disk, log = filled(60)
    before = segments(disk)
    assert log.delete_before(37) >= 2
    assert len(segments(disk)) < len(before)
    assert log.start_offset == 37
    assert [record.offset for record in log.read()] == list(range(37, 60))
    assert [record.offset for record in log.read(reverse=True)] == list(range(59, 36, -1))
    with pytest.raises(OffsetOutOfRange, match=r"\[37, 60\)"):
        log.read(36)
    assert log.delete_before(12) == 0
    with pytest.raises(OffsetOutOfRange):
        log.delete_before(61)
    disk.crash()
    again = opened(disk)
    assert [record.offset for record in again.read()] == list(range(37, 60))


def test_a_log_that_is_deleted_as_a_whole_goes_on_where_it_was() -> None:
    disk, log = filled(60)
    log.delete_before(60)
    assert list(log.read()) == []
    assert len(segments(disk)) == 1
    assert log.append(b"next") == 60
    disk.crash()
    assert [(each.offset, each.value) for each in opened(disk).read()] == [(60, b"next")]


def test_a_reader_whose_next_record_was_deleted_is_told() -> None:
    _, log = filled(60)
    reader = log.read()
    assert next(reader).offset == 0
    log.delete_before(55)
    # The segment it is in stays readable to its end.
    with pytest.raises(OffsetOutOfRange, match=r"\[55, 60\)"):
        list(reader)


def test_a_backward_read_ends_where_older_records_were_deleted() -> None:
    _, log = filled(600)
    reader = log.read(reverse=True)
    assert next(reader).offset == 599
    log.delete_before(590)
    offsets = [record.offset for record in reader]
    assert offsets == list(range(598, offsets[-1] - 1, -1))
    assert offsets[-1] <= 590


def test_housekeeping_by_hand_deletes_what_retention_does_not_keep() -> None:
    _, log = filled(60, Options(retention=Retention(records=20)))
    report = log.housekeep()
    assert report.errors == ()
    assert log.last_housekeeping == report
    assert report.segments_removed > 0
    assert 20 <= log.end_offset - log.start_offset < 60
    assert [record.offset for record in log.read()] == list(range(log.start_offset, 60))
    assert log.append(b"x") == 60
    log.close()


def test_compaction_keeps_the_newest_of_each_key_and_every_offset() -> None:
    settings = Compaction(min_dirty_ratio=0.0, tombstone_delay_s=0)
    disk, log = filled(90, Options(compaction=settings))
    everything = {record.offset: record for record in log.read()}
    reader = log.read()
    assert next(reader).offset == 0
    report = log.housekeep()
    assert report.errors == ()
    assert report.compaction is not None
    kept = list(log.read())
    assert len(kept) < 60
    assert all(record == everything[record.offset] for record in kept)
    assert {record.key for record in kept} == {b"0", b"1", b"2"}
    assert [record.offset for record in kept[-3:]] == [87, 88, 89]
    assert list(log.read(reverse=True)) == kept[::-1]
    # Who was in the middle goes on: to the end of its segment with all that was there.
    rest = [record.offset for record in reader]
    assert rest == sorted(rest)
    assert set(rest) >= {record.offset for record in kept if record.offset}
    log.close()
    again = opened(disk)
    assert list(again.read()) == kept
    assert again.append(b"next") == 90
    again.close()


def test_records_are_deleted_while_a_compaction_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take hours; a thread that deletes is played by the stop signal that the pass asks."""
    _, log = filled(200, Options(compaction=Compaction(min_dirty_ratio=0.0)))
    asked = count(1)

    class Deletes:
        def is_set(self) -> bool:
            if next(asked) == 20:
                assert log.delete_before(100) > 0
            return False

        def wait(self, timeout: float) -> bool:
            return False

    compactor = log._housekeeper._compactor
    assert compactor is not None
    monkeypatch.setattr(compactor, "_stop", Deletes())
    report = log.housekeep()
    assert report.errors == ()
    assert report.compaction is not None
    assert report.compaction.is_complete
    assert next(asked) > 20
    assert log.start_offset == 100
    assert {record.key for record in log.read()} == {b"0", b"1", b"2"}
    log.close()


def test_housekeeping_goes_on_in_the_background(tmp_path: Path) -> None:
    with quorumlog.open(
        tmp_path / "log",
        fsync="never",
        segment_bytes=1024,
        retention=Retention(records=10),
        housekeeping_interval_s=0.01,
    ) as log:
        # Each turn is followed by another one; a log that ends here would never lose its start.
        while log.start_offset < 100:
            log.append(b"x" * 100)
        assert log.last_housekeeping is not None


def test_compressed_records_are_smaller_and_come_back(tmp_path: Path) -> None:
    sizes = {}
    for compression in (None, "zstd"):
        path = tmp_path / str(compression)
        with quorumlog.open(path, compression=compression) as log:
            log.append_batch([b'{"level": "info", "message": "hello"}'] * 500)
            log.append(b"x")
            assert log.append(os.urandom(200), key=b"k") == 501
        sizes[compression] = sum(file.stat().st_size for file in path.glob("*.log"))
        with quorumlog.open(path) as log:
            read = list(log.read())
            assert [record.offset for record in read] == list(range(502))
            assert {record.value for record in read[:500]} == {
                b'{"level": "info", "message": "hello"}'
            }
    assert sizes["zstd"] < sizes[None] / 2
    with pytest.raises(ConfigError, match="zstd"):
        quorumlog.open(tmp_path / "log", compression="lzma")
    assert not (tmp_path / "log").exists()


def test_an_encrypted_log_needs_its_keys_and_is_compacted_with_them() -> None:
    ring = KeyRing.generate("2026", Random(1).randbytes)
    disk = SimDisk(Random(1))
    options = Options(compaction=Compaction(min_dirty_ratio=0.0))
    log = opened(disk, options, keys=ring)
    for number in range(60):
        log.append(b"secret %d " % number * 9, key=b"%d" % (number % 3))
    assert log.housekeep().errors == ()
    kept = list(log.read())
    assert len(kept) < 60
    log.close()
    for name in segments(disk):
        assert b"secret" not in disk.content(f"{DIRECTORY}/{name}")
    with pytest.raises(StorageError):
        opened(disk)
    again = opened(disk, keys=ring)
    assert list(again.read()) == kept
    again.close()


def test_the_error_of_a_locked_log_names_the_process_that_holds_it(tmp_path: Path) -> None:
    script = "import quorumlog, sys; quorumlog.open(sys.argv[1])"
    with quorumlog.open(tmp_path / "log"):
        with pytest.raises(LogLocked, match="this process:"):
            quorumlog.open(tmp_path / "log")
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, text=True
        )
    assert f"process {os.getpid()}" in other.stderr.splitlines()[-1]


def test_a_forked_process_is_refused_and_takes_nothing_with_it(tmp_path: Path) -> None:
    # In a process of its own: one that has threads should not be forked.
    script = """
import os, sys, quorumlog
log = quorumlog.open(sys.argv[1])
log.append(b"parent")
child = os.fork()
if not child:
    for use in (lambda: log.append(b"child"), lambda: log.read(), log.flush):
        try:
            use()
        except quorumlog.QuorumlogError as error:
            assert "fork" in str(error), error
        else:
            os._exit(1)
    log.close()
    try:
        quorumlog.open(sys.argv[1])
    except quorumlog.QuorumlogError:
        os._exit(0)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
log.append(b"parent again")
log.close()
with quorumlog.open(sys.argv[1]) as log:
    print([record.value for record in log.read()])
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert result.stdout.strip() == "[b'parent', b'parent again']", result.stderr


def test_a_closed_log_refuses_upkeep() -> None:
    _, log = filled(3)
    log.close()
    for use in (log.housekeep, lambda: log.delete_before(2)):
        with pytest.raises(Closed):
            use()


def test_settings_of_upkeep_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="housekeeping_interval_s"):
        quorumlog.open(tmp_path / "log", housekeeping_interval_s=0)
    with pytest.raises(ConfigError):
        quorumlog.open(tmp_path / "log", keys=tmp_path / "no such file")
    assert not (tmp_path / "log").exists()
