"""The threads of an embedded log: one syncs when an interval is over, one deletes and compacts."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from quorumlog.errors import (
    Closed,
    DiskFull,
    InvariantViolation,
    LogFenced,
    QuorumlogError,
)
from quorumlog.log.cleaning.housekeeping import HousekeepingReport


class Stop:
    """Tells a thread to end; :class:`quorumlog.log.pacer.StopSignal`.

    Not a ``threading.Event``: that can stay locked when Ctrl-C comes in the middle of its ``set``.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self._is_set = False

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._lock.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        """True as soon as it is set, else False after ``timeout`` seconds."""
        if not self._lock.acquire(timeout=timeout):
            return False
        self._lock.release()
        return True


class Syncer:
    """Calls ``sync`` so many seconds after something was written."""

    def __init__(self, sync: Callable[[], None], interval_s: float) -> None:
        self._sync = sync
        self._interval_s = interval_s
        self._messages: SimpleQueue[bool] = SimpleQueue()
        """True: something was written; False: end."""
        self._is_due = False
        self._thread = Thread(target=self._run, name="quorumlog-fsync", daemon=True)
        self._thread.start()

    def written(self) -> None:
        """Something was written: sync it before long."""
        if not self._is_due:
            self._is_due = True
            self._messages.put(True)

    def stop(self) -> None:
        self._messages.put(False)
        self._thread.join()

    def _run(self) -> None:
        while self._messages.get():
            try:
                if not self._messages.get(timeout=self._interval_s):
                    return
            except Empty:
                pass
            self._is_due = False
            try:
                self._sync()
            except DiskFull:
                # Nothing is lost; there may be space when the next interval is over.
                self.written()
            except QuorumlogError:
                # The log is fenced or closed now, and says so to the next caller.
                return
            except Exception as error:
                # Out of memory, say: what is promised every interval is not over with that.
                _tell("interval_sync_failed", error)
                self.written()


class HousekeepingThread:
    """Calls ``turn`` every ``interval_s`` seconds, until the log is closed or fenced.

    What goes wrong is logged, the same once: nobody waits for this thread, and a log that is not
    cleaned any more must not be found out by a full disk.

    ``failure`` is what kept the last turn from coming to its end; None: nothing did.
    """

    def __init__(
        self, turn: Callable[[], HousekeepingReport], interval_s: float, stop: Stop
    ) -> None:
        self._turn = turn
        self._interval_s = interval_s
        self._stop = stop
        self.failure: Exception | None = None
        self._told: tuple[str, ...] = ()
        self._thread = Thread(target=self._run, name="quorumlog-housekeeping", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread; ``stop`` was set."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                errors: tuple[Exception, ...] = self._turn().errors
                self.failure = None
            except Closed:
                return
            except (LogFenced, InvariantViolation) as error:
                self.failure = error
                _tell("housekeeping_ended", error)
                return
            except Exception as error:
                self.failure = error
                errors = (error,)
            told = tuple(map(repr, errors))
            if told != self._told:
                for each in errors:
                    _tell("housekeeping_failed", each)
            self._told = told


def _tell(event: str, error: Exception) -> None:
    """Write to the log of the program what no caller hears of."""
    # Here: most logs have nothing to say, and the import takes longer than to open one.
    import structlog

    structlog.get_logger("quorumlog.embedded").error(event, error=str(error), exc_info=error)
