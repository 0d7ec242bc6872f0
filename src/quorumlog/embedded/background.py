"""The threads of an embedded log: one syncs when an interval is over, one deletes and compacts."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from quorumlog.errors import Closed, DiskFull, LogFenced, QuorumlogError
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


class HousekeepingThread:
    """Calls ``turn`` every ``interval_s`` seconds, until the log is closed or fenced.

    ``report`` is of the last turn that came to its end. ``failure`` is what ended the thread, if
    anything did but the closing of the log.
    """

    def __init__(
        self, turn: Callable[[], HousekeepingReport], interval_s: float, stop: Stop
    ) -> None:
        self._turn = turn
        self._interval_s = interval_s
        self._stop = stop
        self.failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="quorumlog-housekeeping", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread; ``stop`` was set."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._turn()
            except Closed:
                return
            except LogFenced as error:
                self.failure = error
                return
            except BaseException as error:
                self.failure = error
                raise
