"""A compacted log beside a model of everything ever appended, in any order of operations."""

from collections.abc import Callable
from contextlib import suppress
from random import Random

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.housekeeping import Housekeeper
from quorumlog.log.cleaning.retention import Retention
from sim.disk import SimDisk, SimulatedCrash
from stored.keyed import KeyedLog, Pair

SETTINGS = Compaction(min_dirty_ratio=0.0, tombstone_delay_s=50.0, map_bytes=4096)

keys = st.none() | st.sampled_from([b"", b"a", b"b", b"c", b"d", b"e"])
values = st.none() | st.binary(max_size=60)
batches = st.lists(st.tuples(keys, values), max_size=6)


class StopsAfter:
    """A stop signal that is set once it was asked ``left`` times; never while that is None.

    With ``meanwhile`` it calls that then, and is not set.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.meanwhile: Callable[[], None] | None = None

    def is_set(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        if self.left < 0 and self.meanwhile is not None:
            self.left = None
            self.meanwhile()
            return False
        return self.left < 0

    def wait(self, timeout: float) -> bool:
        return self.is_set()


class CompactedLog(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(Random(7))
        self.stop = StopsAfter()
        self.keyed = KeyedLog(self.disk, SETTINGS, stop=self.stop)

    @rule(
        batch=st.lists(batches, min_size=1, max_size=8),
        producer_id=st.integers(0, 3),
        next_term=st.booleans(),
    )
    def append(self, batch: list[list[Pair]], producer_id: int, next_term: bool) -> None:
        term = max(self.keyed.log.last_term, 1) + next_term
        for pairs in batch:
            self.keyed.append(*pairs, producer_id=producer_id, term=term)
        self.keyed.flush()

    @rule()
    def seal(self) -> None:
        self.keyed.seal()

    @rule(seconds=st.sampled_from([1, 20, 50, 200]))
    def let_time_pass(self, seconds: int) -> None:
        self.keyed.clock.now_s += seconds

    @rule()
    def compact(self) -> None:
        self.keyed.compact()

    @rule(batches=st.integers(0, 40))
    def compact_and_stop(self, batches: int) -> None:
        self.stop.left = batches
        self.keyed.compact()
        self.stop.left = None

    @rule(batches=st.integers(0, 40), data=st.data())
    def compact_and_delete_meanwhile(self, batches: int, data: st.DataObject) -> None:
        self.stop.left, self.stop.meanwhile = batches, lambda: self.delete(data)
        report = self.keyed.compact()
        assert report is None or report.is_complete
        self.stop.left = self.stop.meanwhile = None

    @rule(change=st.integers(1, 40), kill=st.booleans(), seed=st.integers(0, 1000))
    def compact_and_die(self, change: int, kill: bool, seed: int) -> None:
        self.disk.rng.seed(seed)
        self.disk.crash_before(change)
        with suppress(SimulatedCrash):
            self.keyed.compactor.run()
        if kill:
            self.disk.kill()
        else:
            self.disk.crash()
        self.reborn()

    @rule()
    def reopen(self) -> None:
        self.keyed.log.close()
        self.reborn()

    def reborn(self) -> None:
        self.keyed.open()
        # What a replica learns again from its leader after a restart.
        self.keyed.log.advance_commit_floor(self.keyed.log.last_index)

    @precondition(lambda self: self.keyed.log.end_offset > self.keyed.log.start_offset)
    @rule(data=st.data())
    def delete_before(self, data: st.DataObject) -> None:
        self.delete(data)

    def delete(self, data: st.DataObject) -> None:
        log = self.keyed.log
        log.advance_start(data.draw(st.integers(log.start_offset, log.end_offset)))
        log.flush()
        log.remove_deleted()

    @rule(records=st.integers(1, 60))
    def keep_house(self, records: int) -> None:
        keyed = self.keyed
        start_offset, end_offset = keyed.log.start_offset, keyed.log.end_offset
        report = Housekeeper(
            keyed.log, Retention(records=records), keyed.compactor, keyed.clock
        ).run_once()
        assert report.errors == ()
        assert keyed.log.end_offset == end_offset
        assert report.start_offset == start_offset or end_offset - report.start_offset >= records

    @invariant()
    def holds_what_it_has_to(self) -> None:
        self.keyed.check()


TestCompactedLog = CompactedLog.TestCase
TestCompactedLog.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
