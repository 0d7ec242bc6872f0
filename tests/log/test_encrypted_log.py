"""Logs with keys: the same log to who has them, nothing but lengths to who does not."""

import builtins
import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from quorumlog.embedded import EmbeddedLog
from quorumlog.embedded.options import Options
from quorumlog.errors import (
    ConfigError,
    Corrupt,
    DiskFull,
    InvariantViolation,
    KeyMissing,
    ProtocolError,
    WrongKey,
)
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    Batch,
    decode_header,
    iterate_batches,
)
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.config import LogConfig
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.log import Log
from quorumlog.log.scan import Scan
from quorumlog.log.segment import DATA_START, header_before
from quorumlog.log.segment_header import HEADER_BYTES, decode_segment_header
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import (
    DIRECTORY,
    SMALL,
    FixedClock,
    append,
    content,
    next_batch,
    open_log,
    plain,
)

OLD = KeyRing.generate("old", Random(1).randbytes)
BOTH = OLD.with_new_key("new")
NEW = KeyRing("new", {"new": BOTH.key("new") or b""})

WITH_OLD = replace(SMALL, keys=OLD)
WITH_BOTH = replace(SMALL, keys=BOTH)
WITH_NEW = replace(SMALL, keys=NEW)

FIRST = f"{DIRECTORY}/{1:020d}.log"

Plain = list[tuple[bytes, bytes]]


def fetched(log: Log) -> Plain:
    """All that ``fetch`` gives, bodies checked as a consumer does."""
    found: Plain = []
    offset = log.start_offset
    while offset < log.end_offset:
        fetch = log.fetch(offset, 700, log.end_offset)
        found += plain(list(iterate_batches(fetch.data)))
        offset = fetch.next_offset
    return found


def files_of(disk: SimDisk) -> dict[str, bytes]:
    return {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}


def key_ids(log: Log) -> list[str]:
    """The key of each segment; empty where it is not encrypted."""
    return [info.key_id for info in log.segments()]


def nonces_in(disk: SimDisk, path: str = FIRST) -> list[bytes]:
    """The nonces of the batches that stand in a segment file."""
    file = disk.open_readonly(path)
    header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    return [
        file.read_at(position + HEADER_SIZE, 12)
        for position, _ in Scan(file, DATA_START, header_before(header))
    ]


def filled(disk: SimDisk, config: LogConfig = WITH_OLD) -> tuple[Log, Plain]:
    """An open log of some segments, all kinds of batches, and what is in it."""
    log = open_log(disk, config)
    appended = append(log, 6, values=[b"x" * 300])
    appended += append(log, 2, values=[])
    log.flush()
    appended += append(log, 12, term=2, values=[b"a", b"b", b"c" * 90])
    appended += append(log, 1, term=2, values=[b"y" * 5000])
    appended += append(log, 3, term=3)
    log.flush()
    return log, plain(appended)


def test_every_way_to_read_gives_what_was_appended_bit_for_bit() -> None:
    disk = SimDisk(Random(1))
    log, appended = filled(disk)
    for _ in range(2):
        assert len(log.segments()) > 4
        assert content(log) == appended
        assert fetched(log) == [pair for pair in appended if decode_header(pair[0]).record_count]
        assert plain(log.batches_before(log.next_index, 1 << 20))[-3:] == appended[-3:]
        assert plain([log.slice(index, 1)[0] for index in range(1, log.next_index)]) == appended
        headers = [decode_header(head) for head, _ in appended]
        for found, header in zip(log.headers(1), headers, strict=True):
            assert found == replace(header, body_crc=found.body_crc)
            assert log.term_at(header.index) == header.term
            if header.record_count:
                assert log.index_of_offset(header.base_offset) == header.index
        log.close()
        log = open_log(disk, WITH_OLD)
    assert key_ids(log) == ["old"] * len(log.segments())


def test_nothing_of_what_was_appended_is_in_any_file() -> None:
    for config, is_there in ((SMALL, True), (WITH_OLD, False)):
        disk = SimDisk(Random(1))
        log = open_log(disk, config)
        for _ in range(30):
            append(log, 1, values=[b"plain text of a record"])
            log.flush()
        crashed = disk.copy()
        crashed.crash()
        log.close()
        for each in (disk, crashed):
            files = files_of(each)
            assert sum(name.endswith(".log") for name in files) > 1
            assert any(b"plain text" in content for content in files.values()) == is_there


def test_an_encrypted_log_behaves_as_a_plain_one() -> None:
    """The same operations on both, at random, give the same answers."""
    for seed in range(12):
        rng = Random(seed)
        disks = SimDisk(Random(seed)), SimDisk(Random(seed))
        configs = replace(SMALL, tail_cache_bytes=rng.choice([0, 512, 1 << 20])), WITH_OLD
        logs = [open_log(disk, config) for disk, config in zip(disks, configs, strict=True)]
        for _ in range(60):
            operation = rng.choice(["append", "append", "append", "flush", "truncate", "reopen"])
            if operation == "append":
                values = [b"v" * rng.randrange(300) for _ in range(rng.randrange(4))]
                count = rng.randrange(1, 5)
                for log in logs:
                    append(log, count, term=1, values=values)
            elif operation == "flush":
                assert len({log.flush() for log in logs}) == 1
            elif operation == "truncate" and logs[0].last_index:
                index = rng.randrange(1, logs[0].next_index)
                for log in logs:
                    log.truncate(index)
            elif operation == "reopen":
                for log in logs:
                    log.close()
                logs = [open_log(disk, config) for disk, config in zip(disks, configs, strict=True)]
            assert content(logs[0]) == content(logs[1])
        assert fetched(logs[0]) == fetched(logs[1])


def test_what_a_killed_process_left_is_recovered() -> None:
    disk = SimDisk(Random(1))
    log, appended = filled(disk)
    append(log, 1, term=3)
    disk.kill()
    file = disk.open(f"{DIRECTORY}/{disk.list_directory(DIRECTORY)[-1]}")
    file.write_at(file.size_bytes(), [b"torn"])
    log = open_log(disk, WITH_OLD)
    assert log.recovery.cut_bytes
    assert content(log) == appended


# Keys that do not fit.


@pytest.mark.parametrize("config", [SMALL, WITH_NEW])
def test_a_log_does_not_open_without_the_key_of_its_last_segment(config: LogConfig) -> None:
    disk = SimDisk(Random(1))
    filled(disk)[0].close()
    before = files_of(disk)
    with pytest.raises(KeyMissing, match="'old'"):
        open_log(disk, config)
    assert files_of(disk) == before


def test_a_log_does_not_open_with_another_key_of_that_name() -> None:
    disk = SimDisk(Random(1))
    filled(disk)[0].close()
    before = files_of(disk)
    with pytest.raises(WrongKey, match="'old'"):
        open_log(disk, replace(SMALL, keys=KeyRing.generate("old")))
    assert files_of(disk) == before


def test_without_an_old_key_a_log_is_read_from_where_the_key_was_changed() -> None:
    disk = SimDisk(Random(1))
    filled(disk)[0].close()
    log = open_log(disk, WITH_BOTH)
    changed_at = log.next_index
    changed_at_offset = log.end_offset
    appended = append(log, 20, term=3, values=[b"z" * 100])
    log.close()
    log = open_log(disk, WITH_NEW)
    assert plain(list(log.batches(changed_at))) == plain(appended)
    for read in (lambda: log.slice(1, 1), lambda: log.fetch(0, 1, log.end_offset)):
        with pytest.raises(KeyMissing, match=f"{FIRST}.*'old'"):
            read()
    assert len(list(log.headers(1))) == log.last_index
    assert log.term_at(1) == 1
    assert log.index_of_offset(0) == 1
    assert log.offset_for_time(0, log.end_offset) == 0
    log.advance_commit_floor(log.last_index)
    log.advance_start(changed_at_offset)
    log.flush()
    assert log.remove_deleted() > 3
    assert key_ids(log) == ["new"] * len(log.segments())


def test_without_the_library_a_log_with_keys_does_not_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    disk = SimDisk(Random(1))
    with pytest.raises(ConfigError, match="pip install"):
        open_log(disk, WITH_OLD)
    assert not disk.exists(DIRECTORY)
    append(open_log(disk, SMALL))


# Keys that change.


def test_a_new_active_key_begins_a_new_segment_and_old_ones_stay_readable() -> None:
    disk = SimDisk(Random(1))
    expected: Plain = []
    for config in (SMALL, WITH_OLD, WITH_BOTH, WITH_BOTH):
        log = open_log(disk, config)
        expected += plain(append(log, 2))
        log.flush()
        assert content(log) == expected
        log.close()
    log = open_log(disk, WITH_BOTH)
    assert content(log) == expected
    assert key_ids(log) == ["", "old", "new"]
    assert [info.first_index for info in log.segments()] == [1, 3, 5]


def test_opening_alone_begins_no_segment() -> None:
    disk = SimDisk(Random(1))
    filled(disk)[0].close()
    before = files_of(disk)
    open_log(disk, WITH_BOTH).close()
    assert list(files_of(disk)) == list(before)


def test_a_last_segment_without_batches_is_begun_again_with_the_active_key() -> None:
    for begun_with in (SMALL, WITH_OLD):
        disk = SimDisk(Random(1))
        open_log(disk, begun_with).close()
        log = open_log(disk, WITH_BOTH)
        appended = append(log, 2, values=[b"plain text"])
        log.flush()
        assert content(log) == plain(appended)
        assert key_ids(log) == ["new"]
        log.close()
        assert not any(b"plain text" in content for content in files_of(disk).values())
        assert content(open_log(disk, WITH_NEW)) == plain(appended)


def test_an_attempt_to_begin_a_segment_again_is_removed_at_the_next_open() -> None:
    disk = SimDisk(Random(1))
    open_log(disk).close()
    log = open_log(disk, WITH_OLD)
    append(log)
    # Space, mark, header: the file is complete, and not in its place.
    disk.crash_before(7)
    with suppress(SimulatedCrash):
        log.flush()
    disk.kill()
    assert any(name.endswith(".remade") for name in files_of(disk))
    log = open_log(disk)
    assert list(files_of(disk)) == [f"{1:020d}.log"]
    assert log.last_index == 0
    assert key_ids(log) == [""]


def test_a_segment_that_is_begun_again_keeps_what_the_log_knew_there() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 5, term=4)
    log.advance_commit_floor(5)
    log.flush()
    log.roll()
    log.advance_start(3)
    log.close()
    log = open_log(disk, WITH_OLD)
    appended = append(log, 1, term=4, values=[b"plain text"])
    log.flush()
    disk.kill()
    log = open_log(disk, WITH_OLD)
    assert key_ids(log) == ["", "old"]
    assert (log.start_offset, log.commit_floor, log.term_at(5)) == (3, 5, 4)
    assert plain(log.slice(6, 1)) == plain(appended)


def test_nothing_is_appended_in_clear_where_a_truncation_ends_in_a_plain_segment() -> None:
    for from_index in (1, 2):
        disk = SimDisk(Random(1))
        log = open_log(disk)
        expected = plain(append(log, 2, values=[b"old"]))[: from_index - 1]
        log.close()
        log = open_log(disk, WITH_OLD)
        append(log, 3, term=2)
        log.flush()
        log.truncate(from_index)
        expected += plain(append(log, 2, term=3, values=[b"plain text"]))
        assert content(log) == expected
        log.flush()
        assert content(log) == expected
        log.close()
        assert content(open_log(disk, WITH_OLD)) == expected
        assert not any(b"plain text" in content for content in files_of(disk).values())


def test_a_truncation_into_a_segment_whose_key_is_gone_is_none_of_its_business() -> None:
    disk = SimDisk(Random(1))
    log, appended = filled(disk)
    log.close()
    log = open_log(disk, WITH_BOTH)
    append(log, 2, term=3)
    log.close()
    log = open_log(disk, WITH_NEW)
    log.truncate(5)
    more = append(log, 2, term=4)
    log.close()
    assert content(open_log(disk, WITH_BOTH)) == appended[:4] + plain(more)


# Nonces.


def test_no_nonce_is_used_twice_where_a_place_is_written_again() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk, WITH_OLD)
    seen: list[bytes] = []
    for _ in range(5):
        batch = next_batch(log)
        log.append([batch])
        log.flush()
        assert plain(log.slice(1, 1)) == plain([batch])
        seen += nonces_in(disk)
        log.truncate(1)
    assert len(set(seen)) == len(seen) == 5


def test_a_write_that_is_done_again_is_encrypted_again() -> None:
    calls: list[int] = []
    source = Random(3)

    def counted(size_bytes: int) -> bytes:
        calls.append(size_bytes)
        return source.randbytes(size_bytes)

    disk = SimDisk(Random(1))
    log = open_log(disk, replace(SMALL, keys=KeyRing.generate("old", counted)))
    appended = append(log, 2)
    calls.clear()
    disk.fail_at(1, errno.ENOSPC)
    with pytest.raises(DiskFull):
        log.flush()
    log.flush()
    assert calls == [12] * 4
    assert content(log) == plain(appended)


# What is damaged, or forged.


def test_every_flipped_bit_is_found_or_harmless() -> None:
    original = SimDisk(Random(1))
    log = open_log(original, WITH_OLD)
    append(log, 3, values=[b"x" * 400])
    append(log, 1, values=[])
    log.flush()
    append(log, 3, term=2, values=[b"y" * 300])
    log.flush()
    expected = content(log)
    log.close()
    tried = found = 0
    for name, raw in files_of(original).items():
        used = [at for at in range(len(raw)) if raw[at] or at < HEADER_BYTES]
        for position in used:
            bit = 8 * position + position % 8
            original.flip_bit(f"{DIRECTORY}/{name}", position, bit % 8)
            disk = original.copy()
            original.flip_bit(f"{DIRECTORY}/{name}", position, bit % 8)
            tried += 1
            try:
                log = open_log(disk, WITH_OLD)
                assert content(log) == expected
                assert fetched(log) == [
                    pair for pair in expected if decode_header(pair[0]).record_count
                ]
            except (Corrupt, ProtocolError):
                found += 1
    assert tried > 2_500
    assert found > tried * 0.8


def overwrite(disk: SimDisk, batches: list[Batch], path: str = FIRST) -> None:
    """Put ``batches`` where the first ones of a segment stand."""
    file = disk.open(path)
    file.write_at(DATA_START, [part for batch in batches for part in (batch.head, batch.body)])
    file.close()


def test_a_plain_batch_in_an_encrypted_segment_is_not_believed() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk, replace(WITH_OLD, tail_cache_bytes=0))
    forged = next_batch(log, values=[b"forged" * 20])
    append(log, 30, values=[b"x" * 200])
    log.flush()
    overwrite(disk, [forged])
    for read in (lambda: log.slice(1, 1), lambda: log.fetch(0, 1, 1)):
        with pytest.raises(Corrupt, match="not encrypted"):
            read()


def test_an_encrypted_batch_in_a_plain_segment_is_not_handed_out() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk, replace(SMALL, tail_cache_bytes=0))
    batch = next_batch(log)
    append(log, 30, values=[b"x" * 200])
    log.flush()
    header = decode_segment_header(disk.content(FIRST), FIRST)
    cipher, _ = SegmentCipher.create(OLD, header)
    assert cipher is not None
    overwrite(disk, [cipher.seal(batch)])
    for read in (lambda: log.slice(1, 1), lambda: log.fetch(0, 1, 1)):
        with pytest.raises(Corrupt, match="an encrypted one"):
            read()


def test_an_encrypted_batch_is_not_appended() -> None:
    log = open_log(SimDisk(Random(1)), WITH_OLD)
    header = replace(next_batch(log).header, flags=ENCRYPTED)
    with pytest.raises(InvariantViolation, match="flags 0x2"):
        log.append([Batch(header, header.encode(), next_batch(log).body)])


# Crashes.


def change_keys(disk: SimDisk, durable: Callable[[Plain], None]) -> None:
    """A log without keys, empty; then with the old one; then with the new one; truncated to its
    start; then with the new one alone. Says what is durable from each flush on."""
    open_log(disk).close()
    for config in (WITH_OLD, WITH_BOTH):
        log = open_log(disk, config)
        append(log, 3, values=[b"plain text" * 20])
        log.flush()
        durable(content(log))
        log.close()
    log = open_log(disk, WITH_BOTH)
    log.truncate(1)
    log.flush()
    durable([])
    append(log, 2, term=2, values=[b"plain text" * 20])
    log.flush()
    durable(content(log))
    log.close()


@pytest.mark.parametrize("power_cut", [True, False])
def test_a_crash_at_every_call_of_a_change_of_keys_loses_nothing(power_cut: bool) -> None:
    disk = SimDisk(Random(1))
    states: list[Plain] = [[]]
    change_keys(disk, states.append)
    places = disk.changes
    assert places > 60
    for place in range(1, places + 1):
        for seed in range(4 if power_cut else 1):
            disk = SimDisk(Random(place * 31 + seed))
            disk.crash_before(place)
            reached: list[Plain] = [[]]
            with suppress(SimulatedCrash):
                change_keys(disk, reached.append)
            if power_cut:
                disk.crash()
            else:
                disk.kill()
            log = open_log(disk, WITH_BOTH)
            found = content(log)
            last = reached[-1]
            following = states[len(reached) : len(reached) + 1] or [last]
            # What was durable, and some of what was on its way; of a truncation any of it.
            longest = max(last, following[0], key=len)
            shortest = min(len(last), len(following[0]))
            assert found == longest[: len(found)]
            assert len(found) >= shortest
            found += plain(append(log, 1, term=3))
            log.flush()
            disk.kill()
            log = open_log(disk, WITH_BOTH)
            assert content(log) == found
            log.close()
            assert not any(b"plain text" in raw for raw in files_of(disk).values())
            assert not any(name.endswith(".remade") for name in files_of(disk))


def test_an_error_of_the_disk_at_every_call_of_a_change_of_keys_can_be_got_over() -> None:
    """A full disk: the log goes on. Another error: it is fenced, and right when opened again."""
    for code in (errno.ENOSPC, errno.EIO):
        for place in range(1, 25):
            disk = SimDisk(Random(place))
            open_log(disk).close()
            log = open_log(disk, WITH_OLD)
            appended = plain(append(log, 2, values=[b"plain text"]))
            disk.fail_at(place, code)
            with suppress(Exception):
                log.flush()
            if code == errno.ENOSPC and not log.is_fenced:
                log.flush()
                assert content(log) == appended
            disk.kill()
            log = open_log(disk, WITH_OLD)
            assert content(log) in ([], appended[:1], appended)
            append(log, 1)
            log.close()
            assert key_ids(open_log(disk, WITH_OLD))[-1] == "old"
            assert not any(b"plain text" in raw for raw in files_of(disk).values())


def test_a_full_disk_leaves_a_segment_that_was_to_be_begun_again_as_it_was() -> None:
    for first, second in ((None, OLD), (OLD, BOTH)):
        disk = SimDisk(Random(1))
        opened_with(disk, first).close()
        log = opened_with(disk, second)
        before = files_of(disk)
        disk.capacity_bytes = 0
        for _ in range(2):
            with pytest.raises(DiskFull, match="taken back"):
                log.append(b"x")
        # Nothing waits for space any more.
        log.flush()
        assert {**before, **files_of(disk)}[FIRST.split("/")[1]] == before[FIRST.split("/")[1]]
        disk.capacity_bytes = None
        assert log.append(b"y") == 0
        assert [info.key_id for info in log.source.segments()] == [second.active]
        log.close()
        log = opened_with(disk, second)
        assert [record.value for record in log.read()] == [b"y"]
        disk.capacity_bytes = 0
        log.close()


def opened_with(disk: SimDisk, keys: KeyRing | None) -> EmbeddedLog:
    return EmbeddedLog(disk, DIRECTORY, replace(SMALL, keys=keys), FixedClock())


def test_a_log_that_is_closed_on_a_full_disk_before_it_was_written_to_has_lost_nothing() -> None:
    disk = SimDisk(Random(1))
    opened_with(disk, None).close()
    log = opened_with(disk, OLD)
    disk.capacity_bytes = 0
    with pytest.raises(DiskFull):
        log.append(b"x")
    log.close()


NONE_ACTIVE = KeyRing("", {"old": OLD.key("old") or b""})


def test_without_an_active_key_the_next_append_begins_a_plain_segment_and_all_is_readable() -> None:
    disk = SimDisk(Random(1))
    log = opened_with(disk, OLD)
    log.append(b"hidden" * 10, key=b"k")
    log.close()
    for number in range(2):
        log = opened_with(disk, NONE_ACTIVE)
        assert len(log.source.segments()) == 1 + bool(number)
        log.append(b"in clear" * 10)
        assert [info.key_id for info in log.source.segments()] == ["old", ""]
        log.close()
    stored = b"".join(files_of(disk).values())
    assert (b"hidden" in stored, stored.count(b"in clear" * 10)) == (False, 2)
    log = opened_with(disk, NONE_ACTIVE)
    expected = [b"hidden" * 10, b"in clear" * 10, b"in clear" * 10]
    assert [record.value for record in log.read()] == expected
    log.close()
    # The last segment is plain now: it takes no keys to go on, only to read what came before.
    log = opened_with(disk, None)
    log.append(b"plain")
    with pytest.raises(KeyMissing):
        list(log.read())
    log.close()
    log = opened_with(disk, OLD)
    log.append(b"again")
    assert [info.key_id for info in log.source.segments()] == ["old", "", "old"]
    log.close()


def test_an_empty_encrypted_segment_is_begun_again_in_clear_without_an_active_key() -> None:
    disk = SimDisk(Random(1))
    opened_with(disk, OLD).close()
    log = opened_with(disk, NONE_ACTIVE)
    log.append(b"in clear")
    assert [info.key_id for info in log.source.segments()] == [""]
    log.close()
    log = opened_with(disk, None)
    assert [record.value for record in log.read()] == [b"in clear"]
    log.close()


def test_a_new_log_without_an_active_key_is_plain() -> None:
    disk = SimDisk(Random(1))
    log = opened_with(disk, NONE_ACTIVE)
    log.append(b"in clear")
    log.close()
    opened_with(disk, None).close()


def test_compaction_without_an_active_key_takes_the_encryption_away() -> None:
    disk = SimDisk(Random(1))
    settings = Options(compaction=Compaction(min_dirty_ratio=1.0))
    for keys in (OLD, NONE_ACTIVE):
        config = replace(SMALL, keys=keys, tail_cache_bytes=0)
        log = EmbeddedLog(disk, DIRECTORY, config, FixedClock(), settings)
        for number in range(40):
            log.append(b"%d" % number * 40, key=b"%d" % number)
        assert log.housekeep().errors == ()
        before = list(log.read())
        log.close()
    assert len(before) >= 40
    assert b"1" * 40 in b"".join(files_of(disk).values())
    log = opened_with(disk, None)
    assert list(log.read()) == before
    log.close()
