"""The log against a list, under every order of calls that hypothesis finds."""

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorumlog.errors import DiskFull
from quorumlog.log.batch import Batch, Kind, iterate_batches
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from sim.disk import SimDisk
from stored.batches import FixedClock, next_batch, open_log

CONFIGS = [
    LogConfig(segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=0),
    LogConfig(segment_bytes=4096, index_interval_bytes=512, tail_cache_bytes=1000),
    LogConfig(segment_bytes=1024, tail_cache_bytes=500, max_open_segments=1, fsync="interval"),
    LogConfig(segment_bytes=2048, fsync="never"),
]


class LogMachine(RuleBasedStateMachine):
    """``model`` is the log as a list of batches, ``floor`` what must not be truncated."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk(Random(1))
        self.clock = FixedClock()
        self.config = CONFIGS[1]
        self.log: Log = open_log(self.disk, self.config, self.clock)
        self.model: list[Batch] = []
        self.floor = 0
        self.time_ms = 1000

    @rule(
        sizes=st.lists(st.sampled_from([0, 50, 300, 700, 20_000]), min_size=1, max_size=8),
        records=st.integers(0, 3),
        term_step=st.integers(0, 1),
        time_step_ms=st.integers(0, 3),
    )
    def append(self, sizes: list[int], records: int, term_step: int, time_step_ms: int) -> None:
        term = max(self.log.last_term, 1) + term_step
        self.time_ms += time_step_ms
        for size in sizes:
            tag = b"%d:%d" % (len(self.model), term)
            values = [tag.ljust(size, b".")] * records
            batch = next_batch(self.log, term, values, self.time_ms)
            self.log.append([batch])
            self.model.append(batch)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        from_index = data.draw(st.integers(self.floor + 1, len(self.model) + 2))
        self.log.truncate(from_index)
        del self.model[from_index - 1 :]

    @rule()
    def flush(self) -> None:
        flushed = self.log.flush()
        assert flushed.last_index == len(self.model) == self.log.durable_index
        assert flushed.last_term == (self.model[-1].header.term if self.model else 0)
        assert self.log.unflushed_bytes == 0

    @rule(free_bytes=st.integers(0, 70_000))
    def flush_with_little_space(self, free_bytes: int) -> None:
        self.disk.capacity_bytes = 0
        used_bytes = -(self.disk.free_bytes() or 0)
        self.disk.capacity_bytes = used_bytes + free_bytes
        try:
            self.flush()
        except DiskFull:
            assert self.log.durable_index <= len(self.model)
        self.disk.capacity_bytes = None

    @rule(seconds=st.floats(0, 0.2))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(1, len(self.model)))
        self.log.advance_commit_floor(index)
        self.floor = max(self.floor, index)

    @rule(config=st.sampled_from(CONFIGS), killed=st.booleans())
    def reopen(self, config: LogConfig, killed: bool) -> None:
        if killed:
            self.log.flush()
            self.disk.kill()
        else:
            self.log.close()
        self.config = config
        self.log = open_log(self.disk, config, self.clock)
        assert self.log.recovery.cut_bytes == 0
        assert self.log.commit_floor <= self.floor
        self.floor = self.log.commit_floor

    @rule(data=st.data(), max_bytes=st.integers(0, 3000))
    def slice(self, data: st.DataObject, max_bytes: int) -> None:
        first = data.draw(st.integers(1, len(self.model) + 1))
        got = self.log.slice(first, max_bytes)
        assert [batch.header for batch in got] == [
            batch.header for batch in self.model[first - 1 : first - 1 + len(got)]
        ]
        assert [bytes(batch.body) for batch in got] == [
            bytes(batch.body) for batch in self.model[first - 1 : first - 1 + len(got)]
        ]
        assert bool(got) == (first <= len(self.model))
        assert len(got) <= 1 or sum(batch.size_bytes for batch in got) <= max_bytes

    @rule(data=st.data(), max_bytes=st.integers(0, 3000))
    def fetch(self, data: st.DataObject, max_bytes: int) -> None:
        bounds = [0] + [batch.header.next_offset for batch in self.model]
        end = data.draw(st.sampled_from(bounds))
        offset = data.draw(st.integers(0, end))
        fetched = self.log.fetch(offset, max_bytes, end)
        got = [batch.header for batch in iterate_batches(fetched.data)]
        expected = [
            batch.header
            for batch in self.model
            if batch.header.kind is Kind.RECORDS and offset < batch.header.next_offset <= end
        ]
        assert got == expected[: len(got)]
        assert bool(got) == (offset < end)
        assert fetched.next_offset == (got[-1].next_offset if got else offset)

    @rule(data=st.data())
    def find_time(self, data: st.DataObject) -> None:
        timestamp_ms = data.draw(st.integers(990, self.time_ms + 5))
        bounds = [0] + [batch.header.next_offset for batch in self.model]
        end = data.draw(st.sampled_from(bounds))
        expected = next(
            (
                batch.header.base_offset
                for batch in self.model
                if batch.header.kind is Kind.RECORDS
                and batch.header.timestamp_ms >= timestamp_ms
                and batch.header.base_offset < end
            ),
            end,
        )
        assert self.log.offset_for_time(timestamp_ms, end) == expected

    @rule()
    def read_all(self) -> None:
        headers = [batch.header for batch in self.model]
        assert list(self.log.headers(1)) == headers
        assert [batch.header for batch in self.log.batches(1)] == headers
        for index in range(1, len(self.model) + 1):
            assert self.log.term_at(index) == headers[index - 1].term

    @invariant()
    def counters_agree(self) -> None:
        last = self.model[-1].header if self.model else None
        assert self.log.start_index == 1
        assert self.log.last_index == len(self.model)
        assert self.log.next_index == len(self.model) + 1
        assert self.log.end_offset == (last.next_offset if last else 0)
        assert self.log.last_term == (last.term if last else 0)
        assert self.log.last_timestamp_ms == (last.timestamp_ms if last else 0)
        assert self.log.term_at(0) == 0


LogMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLogAgainstAList = LogMachine.TestCase
