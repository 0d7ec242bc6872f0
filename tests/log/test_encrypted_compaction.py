"""Compaction of logs with keys: the same result, under the active key."""

from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from quorumlog.errors import KeyMissing
from quorumlog.log.batch import Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.key_ring import KeyRing
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import DIRECTORY
from stored.keyed import ALWAYS, CONFIG, KeyedLog

OLD = KeyRing.generate("old", Random(1).randbytes)
BOTH = OLD.with_new_key("new")
NEW = KeyRing("new", {"new": BOTH.key("new") or b""})


def with_keys(keys: KeyRing | None) -> LogConfig:
    return replace(CONFIG, keys=keys)


def fill(keyed: KeyedLog, turn: int = 0) -> None:
    """Whole segments that are superseded, and some records that stay, of each term."""
    for number in range(40):
        key = b"key %d" % (number % 4 if number < 30 else number)
        keyed.append((key, b"plain text %d of %d " % (number, turn) * 4), producer_id=number % 3)
    keyed.append(term=keyed.log.last_term + 1)
    keyed.append((None, b"plain text without a key"))
    keyed.seal()


def key_ids(keyed: KeyedLog) -> list[str]:
    return [info.key_id for info in keyed.log.segments() if not info.is_active]


def is_plain_text_on(disk: SimDisk) -> bool:
    names = disk.list_directory(DIRECTORY)
    return any(b"plain text" in disk.content(f"{DIRECTORY}/{name}") for name in names)


def test_what_is_left_of_an_encrypted_log_is_what_is_left_of_a_plain_one() -> None:
    results = []
    for keys in (None, OLD):
        disk = SimDisk(Random(1))
        keyed = KeyedLog(disk, ALWAYS, with_keys(keys))
        for turn in range(3):
            fill(keyed, turn)
            keyed.compact()
        assert is_plain_text_on(disk) == (keys is None)
        keyed.reopen()
        keyed.check()
        assert any(batch.header.kind is Kind.GAP for batch in keyed.stored())
        results.append(keyed.records())
    assert results[0] == results[1]


@pytest.mark.parametrize("before", [None, OLD])
def test_a_pass_puts_everything_that_is_sealed_under_the_active_key(before: KeyRing | None) -> None:
    disk = SimDisk(Random(1))
    keyed = KeyedLog(disk, ALWAYS, with_keys(before))
    fill(keyed)
    keyed.compact()
    keyed.config = with_keys(BOTH)
    keyed.reopen()
    assert keyed.compact() is not None
    assert set(key_ids(keyed)) == {"new"}
    keyed.append((b"key", b"plain text"))
    keyed.flush()
    keyed.config = with_keys(NEW)
    keyed.reopen()
    keyed.check()
    assert {info.key_id for info in keyed.log.segments()} == {"new"}
    keyed.log.close()
    assert not is_plain_text_on(disk)


def test_a_segment_whose_key_is_gone_is_left_as_it_is() -> None:
    disk = SimDisk(Random(1))
    keyed = KeyedLog(disk, ALWAYS, with_keys(OLD))
    fill(keyed)
    keyed.config = with_keys(BOTH)
    keyed.reopen()
    keyed.append((b"key 1", b"new"))
    keyed.seal()
    keyed.config = with_keys(NEW)
    keyed.reopen()
    before = {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}
    for _ in range(2):
        with pytest.raises(KeyMissing, match="'old'"):
            keyed.compactor.run()
    for name, raw in before.items():
        assert disk.content(f"{DIRECTORY}/{name}") == raw
    keyed.config = with_keys(BOTH)
    keyed.reopen()
    keyed.compact()
    assert set(key_ids(keyed)) == {"new"}


def test_a_crash_at_every_call_of_a_change_of_keys_loses_nothing() -> None:
    def prepared(seed: int) -> tuple[SimDisk, KeyedLog]:
        disk = SimDisk(Random(seed))
        keyed = KeyedLog(disk, ALWAYS, with_keys(OLD))
        fill(keyed)
        keyed.config = with_keys(BOTH)
        keyed.reopen()
        return disk, keyed

    disk, keyed = prepared(1)
    before = disk.changes
    keyed.compact()
    places = disk.changes - before
    assert places > 30
    for place in range(1, places + 1, 2):
        disk, keyed = prepared(place)
        disk.crash_before(place)
        with suppress(SimulatedCrash):
            keyed.compactor.run()
        disk.crash()
        keyed.open()
        keyed.check()
        keyed.compact()
        assert set(key_ids(keyed)) == {"new"}
