"""The memory of a compaction pass: the key map beside a dict, the producers, and their bounds."""

import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.log.cleaning import key_map
from quorumlog.log.cleaning.key_map import PRODUCER_BYTES, SLOT_BYTES, KeyMap, NewestBatches


@given(st.lists(st.binary(max_size=3), max_size=200), st.integers(1, 4_000))
def test_the_map_is_a_dict_until_it_is_full(keys: list[bytes], map_bytes: int) -> None:
    key_map = KeyMap(map_bytes, 200)
    model: dict[bytes, int] = {}
    for offset, key in enumerate(keys):
        if key in model or len(model) < key_map.capacity:
            assert key_map.put(key, offset)
            model[key] = offset
        else:
            assert not key_map.put(key, offset)
    assert len(key_map) == len(model)
    for key in keys:
        assert key_map.newest(key) == model.get(key, -1)
    assert key_map.newest(b"never put") == -1


def test_the_map_is_large_enough_for_as_many_keys_as_there_can_be_and_no_larger() -> None:
    for most_keys in range(200):
        key_map = KeyMap(1_000_000, most_keys)
        assert key_map.capacity >= most_keys
        assert key_map.size_bytes <= SLOT_BYTES * (most_keys * 4 // 3 + 4)


def test_the_map_takes_the_memory_it_was_given_and_no_more() -> None:
    map_bytes = 480_000
    keys = [b"key-%d" % number for number in range(15_001)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        key_map = KeyMap(map_bytes, 10**9)
        full = [key_map.put(key, offset) for offset, key in enumerate(keys)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert full == [True] * 15_000 + [False]
    # The list of answers is in it too.
    assert taken <= map_bytes + 8 * len(full) + 2_000
    assert key_map.size_bytes == map_bytes


def test_of_every_producer_the_newest_batch_is_known() -> None:
    newest = NewestBatches(10)
    newest.note(7, 5)
    newest.note(7, 9)
    newest.note(7, 6)
    assert newest.has_newer(7, 8)
    assert not newest.has_newer(7, 9)
    assert not newest.has_newer(8, 1)


@given(st.lists(st.integers(0, 30), max_size=200))
def test_the_producers_that_were_silent_longest_are_forgotten(producers: list[int]) -> None:
    newest = NewestBatches(10)
    for index, producer_id in enumerate(producers):
        newest.note(producer_id, index)
        assert len(newest) <= 10
    recent = list(dict.fromkeys(reversed(producers)))
    for age, producer_id in enumerate(recent):
        assert newest.has_newer(producer_id, -1) == (age < 10)


def test_a_producer_takes_no_more_memory_than_it_is_counted_with() -> None:
    random = Random(1)
    ids = [random.getrandbits(63) for _ in range(20_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        newest = NewestBatches(len(ids))
        for index, producer_id in enumerate(ids):
            newest.note(producer_id, index + 10_000)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= PRODUCER_BYTES * len(ids)


def test_keys_of_which_half_a_digest_is_the_same_are_different_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for halves in ((lambda key: (7, key[0])), (lambda key: (key[0], 7))):
        monkeypatch.setattr(key_map, "_digest", halves)
        keys = KeyMap(4096, 100)
        for offset, key in enumerate((b"a", b"b", b"c")):
            assert keys.newest(key) == -1
            assert keys.put(key, offset)
        assert [keys.newest(key) for key in (b"a", b"b", b"c", b"d")] == [0, 1, 2, -1]
