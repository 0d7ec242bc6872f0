"""What has become of the lines of a ``produce``, and how that is shown."""

import asyncio
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from quorumlog.cli.output import plural
from quorumlog.errors import QuorumlogError

if TYPE_CHECKING:
    from quorumlog.client.models import RunMetadata

PROGRESS_INTERVAL_S = 0.2


class Tally:
    """Counts lines as their acknowledgements arrive.

    Lines are queued in order, in runs (those of one partition in one batch); the first line that is
    not acknowledged is then the smallest first line of the runs that are not.
    """

    def __init__(self) -> None:
        self.lines_read = 0
        self.acknowledged = 0
        self.last_offsets: dict[int, int | None] = {}
        self.error: QuorumlogError | None = None
        self._chunk_at = 0
        self._chunk_lines = 0
        self._chunk_queued: list[Sequence[int]] = []
        self._lines_queued = 0
        self._waiting: dict[asyncio.Future[RunMetadata], int] = {}
        self._failed: list[int] = []

    def begin(self, count: int) -> None:
        """``count`` further lines are about to be queued; all those begun before are."""
        self._chunk_at += self._chunk_lines
        self._chunk_lines = count
        self._chunk_queued = []
        self.lines_read += count

    def queued(self, positions: Sequence[int], future: "asyncio.Future[RunMetadata]") -> None:
        """A run is on its way: ``positions`` among the lines begun last."""
        self._chunk_queued.append(positions)
        self._lines_queued += len(positions)
        self._waiting[future] = self._chunk_at + positions[0]
        future.add_done_callback(self._settled)

    async def settle(self) -> None:
        """Return when the fate of all that was queued is known."""
        if self._waiting:
            await asyncio.wait(list(self._waiting))
            # The futures' own callbacks, which count them, come in the loop's next turn.
            await asyncio.sleep(0)

    @property
    def first_unacknowledged(self) -> int:
        """How many lines from the beginning on are acknowledged without a gap."""
        queued = {position for positions in self._chunk_queued for position in positions}
        unqueued = (number for number in range(self._chunk_lines) if number not in queued)
        first_unqueued = self._chunk_at + next(unqueued, self._chunk_lines)
        return min([first_unqueued, *self._waiting.values(), *self._failed])

    def summary(self) -> dict[str, object]:
        """For programs. ``contiguous`` lines from the beginning on are among ``records``."""
        return {
            "records": self.acknowledged,
            "contiguous": self.first_unacknowledged,
            "last_offsets": {str(key): value for key, value in sorted(self.last_offsets.items())},
        }

    def sentence(self) -> str:
        """For people, exact: what is acknowledged and what is not."""
        contiguous = self.first_unacknowledged
        later = self.acknowledged - contiguous
        if contiguous == 0 and later == 0:
            text = "no line is acknowledged"
        else:
            verb = "is" if contiguous == 1 else "are"
            text = f"the first {plural(contiguous, 'line')} {verb} acknowledged"
            if later:
                text = f"{text}, and {later:,} later ones too"
        in_doubt = self._lines_queued - self.acknowledged
        if in_doubt:
            text = f"{text}; {in_doubt:,} more were queued, some may be stored"
        return text

    def _settled(self, future: "asyncio.Future[RunMetadata]") -> None:
        first_line = self._waiting.pop(future)
        error = future.exception()
        if error is None:
            run = future.result()
            self.acknowledged += run.record_count
            self.last_offsets[run.partition] = run.last_offset
            return
        self._failed.append(first_line)
        if self.error is None and isinstance(error, QuorumlogError):
            self.error = error


class Progress:
    """A line on stderr that keeps up with ``tally``, where that is a terminal. Needs a loop."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._timer: asyncio.TimerHandle | None = None
        self._start_s = 0.0

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._start_s = asyncio.get_running_loop().time()
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _show(self) -> None:
        loop = asyncio.get_running_loop()
        elapsed_s = max(loop.time() - self._start_s, 0.001)
        count = self._tally.acknowledged
        text = f"{plural(count, 'record')} acknowledged, {count / elapsed_s:,.0f} records/s"
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        self._timer = loop.call_later(PROGRESS_INTERVAL_S, self._show)
