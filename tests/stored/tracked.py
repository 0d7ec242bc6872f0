"""A log beside a list: what may be found after a crash, and what must be."""

from collections.abc import Sequence

from quorumlog.log.batch import Batch
from quorumlog.log.log import Log
from quorumlog.ports import Disk
from stored.batches import append, content, open_log, plain

Plain = list[tuple[bytes, bytes]]


class TrackedLog:
    """A log and all states it may be found in if the power is cut now."""

    def __init__(self, disk: Disk) -> None:
        self.log: Log = open_log(disk)
        self.state: Plain = content(self.log)
        self.legal: list[Plain] = [list(self.state)]

    def append(self, count: int = 1, term: int = 1, values: Sequence[bytes] = (b"value",)) -> None:
        base = len(self.state)
        batches: list[Batch] = append(self.log, count, term, values)
        self.state = self.state + plain(batches)
        self.legal += [self.state[:length] for length in range(base + 1, len(self.state) + 1)]

    def truncate(self, from_index: int) -> None:
        """Segments are removed from the end one by one: every length in between may be found."""
        old = self.state
        self.log.truncate(from_index)
        self.state = old[: from_index - 1]
        self.legal += [old[:length] for length in range(from_index - 1, len(old))]

    def flush(self) -> None:
        """Whatever was legal before, only what is there now is legal afterwards."""
        flushed = self.log.flush()
        assert flushed.last_index == len(self.state)
        self.legal = [list(self.state)]

    def scenario(self) -> None:
        """Small and large appends, several segments, truncations within and across segments."""
        self.append(3)
        self.flush()
        self.append(6, values=[b"x" * 300])
        self.append(2, values=[])
        self.flush()
        self.append(1, term=2, values=[b"a", b"b", b"c"])
        self.log.advance_commit_floor(4)
        self.flush()
        self.truncate(11)
        self.append(2, term=3)
        self.flush()
        self.append(12, term=3, values=[b"y" * 200])
        self.flush()
        self.truncate(9)
        self.append(1, term=4, values=[b"z" * 700])
        self.append(1, term=4, values=[b"z" * 5000])
        self.flush()
        self.append(9, term=5, values=[b"w" * 150])
        self.truncate(14)
        self.append(3, term=6)
        self.flush()
        self.truncate(12)
        self.flush()
        self.log.close()
