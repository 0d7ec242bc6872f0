"""What is done to a log before it dies: a new operation is a new line here."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from quorumlog.log.config import LogConfig
from stored.batches import SMALL
from stored.tracked import TrackedLog

INTERVAL: Final = LogConfig(segment_bytes=2048, fsync="interval", fsync_interval_s=1.0)
NEVER: Final = LogConfig(segment_bytes=4096, index_interval_bytes=256, fsync="never")
TINY: Final = LogConfig(
    segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=0, max_open_segments=1
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run`` works on a log that was just opened in an empty directory with ``config``."""

    name: str
    run: Callable[[TrackedLog], None]
    config: LogConfig = SMALL


def _sizes(log: TrackedLog) -> None:
    """Batches of no record and of many, smaller than a sector and larger than a segment."""
    log.append(3)
    log.flush()
    log.append(2, values=[])
    log.append(1, values=[b"%d" % number for number in range(40)])
    log.flush()
    log.append(1, values=[b"x" * 5000])
    log.append(1, values=[b"x" * 70_000])
    log.append(2)
    log.flush()


def _group(log: TrackedLog) -> None:
    """One flush that fills several segments."""
    log.append(1)
    log.flush()
    log.append(12, values=[b"x" * 500])
    log.append(3, term=2)
    log.flush()


def _truncations(log: TrackedLog) -> None:
    """Within a segment, across some, to nothing, of what is not written yet."""
    log.append(12, values=[b"x" * 400])
    log.flush()
    log.truncate(11)
    log.flush()
    log.truncate(4)
    log.append(2, term=2, values=[b"y" * 400])
    log.flush()
    log.append(6, term=3, values=[b"z" * 400])
    log.truncate(8)
    log.append(1, term=4)
    log.flush()
    log.truncate(1)
    log.flush()
    log.append(1, term=5)
    log.flush()


def _rolls(log: TrackedLog) -> None:
    """By hand, of a segment with nothing in it too, and taken back before it was done."""
    log.roll()
    log.append(2)
    log.roll()
    log.flush()
    log.roll()
    log.flush()
    log.append(1)
    log.flush()
    log.roll()
    log.append(1, term=2)
    log.truncate(4)
    log.append(2, term=3)
    log.flush()


def _clean_stops(log: TrackedLog) -> None:
    """Closed empty, closed full, closed and not touched, closed and cut."""
    log.reopen()
    log.append(2)
    log.reopen()
    log.reopen()
    log.append(7, values=[b"x" * 500])
    log.reopen()
    log.append(1)
    log.flush()
    log.reopen()
    log.truncate(9)
    log.reopen()
    log.append(1, term=2)
    log.flush()


def _deaths(log: TrackedLog) -> None:
    """Processes that die with batches flushed, not flushed, and with nothing done at all."""
    log.append(2)
    log.flush()
    log.append(1)
    log.die()
    log.append(6, values=[b"x" * 500])
    log.flush()
    log.die()
    log.die()
    log.commit(3)
    log.append(1)
    log.flush()
    log.die()
    log.reopen()
    log.truncate(5)
    log.append(1, term=2)
    log.flush()


def _retention(log: TrackedLog) -> None:
    """Deletion within a segment, of segments, of everything, and appends behind it."""
    log.append(10, values=[b"x" * 400, b"y"])
    log.flush()
    log.commit(8)
    log.delete_before(3)
    log.flush()
    log.remove_deleted()
    log.append(1)
    log.flush()
    log.delete_before(13)
    log.flush()
    log.remove_deleted()
    log.append(4, values=[b"z" * 600])
    log.truncate(12)
    log.flush()
    log.reopen()
    log.commit(11)
    log.roll()
    log.delete_before(21)
    log.flush()
    log.remove_deleted()
    log.append(1, term=2)
    log.flush()


def _retention_with_appends(log: TrackedLog) -> None:
    """A flush that has batches to write and a new start to remember."""
    log.append(10, values=[b"x" * 400])
    log.flush()
    log.commit(8)
    log.append(1)
    log.delete_before(7)
    log.flush()
    log.remove_deleted()
    log.append(1)
    log.flush()


def _interval(log: TrackedLog) -> None:
    """Syncs that are due and syncs that are asked for."""
    log.append(2)
    log.flush()
    log.append(1)
    log.flush()
    log.clock.now_s += 2.0
    log.flush()
    log.append(6, values=[b"x" * 600])
    log.flush()
    log.append(1)
    log.sync()
    log.append(2, term=2)
    log.truncate(10)
    log.flush()
    log.commit(4)
    log.delete_before(2)
    log.flush()
    log.append(1, term=3)


def _cut_and_reuse(log: TrackedLog) -> None:
    """Other batches of the same length come to stand where others stood."""
    for term in (1, 2):
        log.append(4, term=term, values=[b"x" * 400])
        log.flush()
        log.truncate(3)
        log.append(1, term=term)
        log.flush()
        log.truncate(2)


SCENARIOS: Final = (
    Scenario("sizes", _sizes),
    Scenario("group", _group),
    Scenario("truncations", _truncations),
    Scenario("rolls", _rolls),
    Scenario("clean stops", _clean_stops),
    Scenario("deaths", _deaths),
    Scenario("retention", _retention),
    Scenario("retention, tiny", _retention, TINY),
    Scenario("retention with appends", _retention_with_appends),
    Scenario("interval", _interval, INTERVAL),
    Scenario("never", _interval, NEVER),
    Scenario("cut and reuse", _cut_and_reuse, TINY),
)


def random_scenario(seed: int) -> Scenario:
    """Twenty operations in any order that the log's contract allows."""

    def run(log: TrackedLog) -> None:
        rng = Random(seed)
        for _ in range(20):
            _random_step(log, rng)

    config = Random(~seed).choice((SMALL, TINY, INTERVAL, NEVER))
    return Scenario(f"random {seed}", run, config)


def _random_step(log: TrackedLog, rng: Random) -> None:
    last = len(log.state)
    term = max(log.log.last_term, 1)
    match rng.choices(range(10), (8, 8, 3, 4, 5, 1, 2, 2, 1, 1))[0]:
        case 0:
            sizes = [rng.choice((0, 20, 300, 600, 5000)) for _ in range(rng.randrange(4))]
            log.append(
                rng.randrange(1, 8), term + rng.randrange(2), [b"x" * each for each in sizes]
            )
        case 1:
            log.flush()
        case 2:
            low = max(log.log.commit_floor, log.log.start_index - 1) + 1
            if low <= last:
                log.truncate(rng.randrange(low, last + 1))
        case 3:
            log.commit(rng.randrange(log.log.start_index - 1, last + 1))
        case 4:
            _delete_some(log, rng)
        case 5:
            log.roll()
        case 6:
            log.reopen()
        case 7:
            log.die()
        case 8:
            log.sync()
        case 9:
            log.clock.now_s += rng.random() * 2


def _delete_some(log: TrackedLog, rng: Random) -> None:
    floor = log.log.commit_floor
    if floor >= log.log.start_index:
        committed = next(log.log.headers(floor)).next_offset
        if committed > log.log.start_offset:
            log.delete_before(rng.randrange(log.log.start_offset, committed + 1))
            if rng.random() < 0.4:
                log.append(1, max(log.log.last_term, 1))
            if rng.random() < 0.6:
                log.flush()
                log.remove_deleted()
