"""What the log keeps in memory: the tail and the sparse index."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.log.sparse_index import Seal, SparseIndex, decode_index
from quorumlog.log.tail import Tail
from sim.disk import SimDisk
from stored.batches import append, open_log


@given(st.data())
def test_the_tail_hands_out_and_evicts_as_a_list_does(data: st.DataObject) -> None:
    log = open_log(SimDisk(Random(1)))
    sizes = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=20))
    batches = [append(log, 1, values=[b"x" * size])[0] for size in sizes]
    tail = Tail(log.start_index)
    for batch in batches:
        tail.append(batch)
    keep_bytes = data.draw(st.integers(0, 3000))
    written = data.draw(st.integers(0, len(batches)))
    tail.evict(written, keep_bytes)
    kept = batches[tail.first_index - 1 :]
    assert len(tail) == len(kept)
    assert tail.first_index <= written + 1
    if tail.first_index <= written:
        assert sum(batch.size_bytes for batch in kept) <= keep_bytes + keep_bytes // 8
    for first in range(tail.first_index, len(batches) + 1):
        got = tail.slice(first, len(batches), 500)
        assert got == batches[first - 1 : first - 1 + len(got)]
        assert len(got) == 1 or sum(batch.size_bytes for batch in got) <= 500


def test_an_index_file_of_another_state_is_not_taken() -> None:
    log = open_log(SimDisk(Random(1)))
    index = SparseIndex(128)
    for number, batch in enumerate(append(log, 5)):
        index.add(batch.header, 12288 + number * 120)
    seal = Seal(1, 1000, 0, 5, 12888)
    raw = index.encode(seal)
    assert decode_index(raw, seal, 128) is not None
    for other in (
        Seal(2, 1000, 0, 5, 12888),
        Seal(1, 7, 0, 5, 12888),
        Seal(1, 1000, 1, 5, 12888),
        Seal(1, 1000, 0, 4, 12888),
        Seal(1, 1000, 0, 5, 12889),
    ):
        assert decode_index(raw, other, 128) is None
    for length in range(len(raw)):
        assert decode_index(raw[:length], seal, 128) is None
