"""Looking for rot in all logs of a node, at one rate for all of them."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Final

import structlog

from quorumlog.errors import Closed, Corrupt, LogFenced
from quorumlog.log.inspection.damage import Severity
from quorumlog.log.inspection.scrubber import (
    DEFAULT_PAUSE_S,
    Checked,
    ScrubbedLog,
    Scrubber,
    log_finding,
)
from quorumlog.log.pacer import Pacer, Stopped
from quorumlog.ports import Clock, Disk
from quorumlog.system import ThreadWorker
from quorumlog.types import GroupId

_LOOK_S: Final = 1.0
"""How often it looks for logs that were opened, while there is nothing to read."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Course:
    """How far one log is. ``due_s``: when its round begins, or began."""

    log: ScrubbedLog
    scrubber: Scrubber
    due_s: float = -math.inf


class Scrubbing:
    """Goes round the sealed segments of the open logs, on a thread of its own; made in the loop.

    Segments are taken from the groups in turn, so that a large one does not keep the others
    waiting for days. Damage is reported as the event ``rot_found``, with the group,
    and to who owns the logs: a replica among others starts over.
    """

    def __init__(
        self,
        logs: Callable[[], Mapping[GroupId, ScrubbedLog]],
        disk: Disk,
        clock: Clock,
        bytes_s: int,
        pause_s: float = DEFAULT_PAUSE_S,
        on_damage: Callable[[GroupId, Corrupt], object] = lambda group, error: None,
    ) -> None:
        """
        Args:
            logs: what is open now; called in the loop. A log that is closed meanwhile is left out.
            bytes_s: bytes read in a second, all logs together; 0: nothing is done.
            pause_s: seconds between the end of one round of a log and the beginning of its next.
            on_damage: told, in the loop, of what a log has lost.
        """
        self._logs = logs
        self._disk = disk
        self._clock = clock
        self._stop = Event()
        self._pacer = Pacer(bytes_s, clock, self._stop)
        self._pause_s = pause_s
        self._on_damage = on_damage
        self._courses: dict[GroupId, _Course] = {}
        self._worker = ThreadWorker(1)
        self._task = asyncio.create_task(self._run()) if bytes_s else None

    async def close(self) -> None:
        """Stop, within a read of a MiB. Idempotent."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._worker.close)

    async def _run(self) -> None:
        while True:
            turn = self._due()
            for group in turn:
                await self._check_next(group)
            if not turn:
                await asyncio.sleep(_LOOK_S)

    def _due(self) -> list[GroupId]:
        """The groups that are in their round, or are to begin one."""
        logs = self._logs()
        for group, course in list(self._courses.items()):
            if logs.get(group) is not course.log:
                del self._courses[group]
        for group, log in logs.items():
            if group not in self._courses:
                self._courses[group] = _Course(log, self._scrubber_of(group, log))
        now_s = self._clock.monotonic_s()
        return sorted(group for group in logs if self._courses[group].due_s <= now_s)

    def _scrubber_of(self, group: GroupId, log: ScrubbedLog) -> Scrubber:
        return Scrubber(
            log,
            self._disk,
            self._clock,
            self._stop,
            bytes_s=self._pacer,
            on_finding=partial(log_finding, group=group),
        )

    async def _check_next(self, group: GroupId) -> None:
        """Check one segment; at the end of the round the next one begins after the pause."""
        course = self._courses[group]
        try:
            checked = await self._worker.run(course.scrubber.check_next)
            if checked is not None:
                self._tell_of(group, course, checked)
                return
        except (Stopped, Closed, LogFenced):
            pass  # there is nothing to be done until the log is opened again
        except Exception as error:
            # It changed nothing, so the replica goes on; the other logs have to be read, too.
            _log.error("scrub_failed", group=group, error=str(error), exc_info=error)
        course.due_s = self._clock.monotonic_s() + self._pause_s

    def _tell_of(self, group: GroupId, course: _Course, checked: Checked) -> None:
        lost = [each for each in checked.findings if each.severity is Severity.DAMAGE]
        # Meanwhile the replica may have begun another log.
        if lost and self._logs().get(group) is course.log:
            worst = lost[0]
            error = Corrupt(worst.file, worst.position, worst.expected, worst.found)
            self._on_damage(group, error)
