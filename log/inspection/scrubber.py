"""Looking for rot in the sealed segments of an open log, slowly, before somebody needs them.

It reads files and holds no lock of the log: writers never wait for it. What the log does to a
segment meanwhile (deletion, compaction) may look like damage, so that is looked at a second time.
Rot below the page cache is found when the system reads the disk again: that is so for what is
cold, which a scrubber is for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from quorumlog.errors import Closed, ConfigError, Corrupt, LogFenced, StorageError
from quorumlog.log.inspection.damage import Finding, Flaw, Severity, Span
from quorumlog.log.inspection.examine import begin_of, examine
from quorumlog.log.inspection.examined import Task
from quorumlog.log.inspection.inventory import SegmentFile
from quorumlog.log.pacer import MIN_BYTES_S, Pacer, Stopped, StopSignal
from quorumlog.log.paths import first_indexes_of, parent_of, segment_name
from quorumlog.log.upkeep import SegmentInfo
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index

MAX_REPORTED: Final = 10_000
"""Findings that are remembered, so that each is reported once; beyond that some are again."""

DEFAULT_PAUSE_S: Final = 3600.0

_log = structlog.get_logger("quorumlog.log")


@dataclass(frozen=True, slots=True)
class _Place:
    """A segment; compaction gives it another generation."""

    first_index: Index
    path: str
    generation: int


class ScrubbedLog(Protocol):
    """What a scrubber asks of a log; :class:`quorumlog.log.log.Log` is one."""

    def segments(self) -> list[SegmentInfo]: ...


def log_finding(finding: Finding, **context: object) -> None:
    """Write a finding to the log of the program; ``context``: more to say of it."""
    offsets = finding.offsets
    _log.error(
        "rot_found",
        flaw=finding.flaw,
        severity=finding.severity,
        file=finding.file,
        position=finding.position,
        expected=finding.expected,
        found=finding.found,
        first_offset=None if offsets is None else offsets.start,
        next_offset=None if offsets is None else offsets.end,
        **context,
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """One segment that was looked at.

    Attributes:
        was_gone: it was deleted, compacted or cut meanwhile: nothing is known of it.
    """

    path: str
    findings: tuple[Finding, ...] = ()
    was_gone: bool = False


class Scrubber:
    """Goes round the sealed segments of one log, in order. One thread calls it.

    The first round begins at a segment that the clock picks: a process that never lives as long
    as a round takes would otherwise read the same segments every time, and the others never.

    Attributes:
        segments_checked, bytes_read: since it was made.
    """

    def __init__(
        self,
        log: ScrubbedLog,
        disk: Disk,
        clock: Clock,
        stop: StopSignal,
        *,
        bytes_s: int | Pacer,
        pause_s: float = DEFAULT_PAUSE_S,
        on_finding: Callable[[Finding], None] = log_finding,
    ) -> None:
        """
        Args:
            stop: ends :meth:`run`, within a read of a MiB.
            bytes_s: bytes read in a second, at most (4 KiB or more); a pacer where several
                scrubbers of one thread share a rate.
            pause_s: seconds between the end of one round and the beginning of the next.
            on_finding: called for damage, once for each; in the thread that runs the scrubber.

        Raises:
            ConfigError: a setting out of its bounds.
        """
        if pause_s < 0 or (isinstance(bytes_s, int) and bytes_s < MIN_BYTES_S):
            raise ConfigError(
                f"a scrubber reads {MIN_BYTES_S} bytes a second or more and pauses for 0 s or "
                f"more, not {bytes_s} and {pause_s}"
            )
        self._log = log
        self._disk = disk
        self._stop = stop
        self._pacer = Pacer(bytes_s, clock, stop) if isinstance(bytes_s, int) else bytes_s
        self._pause_s = pause_s
        self._on_finding = on_finding
        self._reported: set[Finding] = set()
        self._clock = clock
        self._next_index: Index | None = None
        self._begun_at = Index(0)
        """Of the first round: what is before it is read when the end is reached."""
        self._until: Index | None = None
        """Where the first round ends, once it has gone round."""
        self.segments_checked = 0
        self.bytes_read = 0

    def run(self) -> None:
        """Check round after round until the signal is set, or the log is closed or fenced.

        What fails otherwise is reported as the event ``scrub_failed``; after the pause it goes on
        with the segment behind.
        """
        while not self._stop.is_set():
            try:
                if self.check_next() is not None:
                    continue
            except (Stopped, Closed, LogFenced):
                return
            except Exception as error:
                # It changed nothing, so the log goes on; and the other segments have to be read.
                _log.error("scrub_failed", error=str(error), exc_info=error)
            if self._stop.wait(self._pause_s):
                return

    def check_next(self) -> Checked | None:
        """Check the next segment, reporting what is wrong; None: the round is over.

        Whatever it raises, the next call goes on with the segment behind.

        Raises:
            Stopped, Closed, LogFenced
        """
        places = self._places()
        # The last one is only there to say where the one before it ends.
        sealed = len(places) - 1
        if sealed > 0 and self._next_index is None:
            self._begun_at = places[self._clock.wall_ms() % sealed].first_index
            self._next_index = self._begun_at
        next_index = self._next_index or 0
        at = next((at for at, each in enumerate(places) if each.first_index >= next_index), sealed)
        if at >= sealed and self._begun_at:
            self._until, self._begun_at, at = self._begun_at, Index(0), 0
        is_round = self._until is not None and places[at].first_index >= self._until
        if at >= sealed or is_round:
            self._next_index, self._until = Index(0), None
            return None
        place, behind = places[at : at + 2]
        self._next_index = Index(place.first_index + 1)
        findings = self._damage_of(place, behind)
        if findings:
            # What was done to the files meanwhile is no rot; rot is there the second time too.
            now = self._places()
            is_same = [each for each in now if each in (place, behind)] == [place, behind]
            again = self._damage_of(place, behind) if is_same else None
            findings = None if again is None else [each for each in findings if each in again]
        self.segments_checked += 1
        if findings is None:
            return Checked(place.path, was_gone=True)
        for finding in findings:
            self._report(finding)
        return Checked(place.path, tuple(findings))

    def _places(self) -> list[_Place]:
        """The sealed segments, and the one behind them."""
        try:
            infos = self._log.segments()
        except Corrupt as error:
            # A header cannot be read: the log does not know its segments, the directory does.
            self._report(
                Finding(
                    Severity.DAMAGE,
                    Flaw.HEADER,
                    error.file,
                    error.position,
                    error.expected,
                    error.got,
                )
            )
            return self._places_by_name(parent_of(error.file))
        except (Closed, LogFenced):
            raise
        except StorageError as error:
            self._report(
                Finding(Severity.DAMAGE, Flaw.UNREADABLE, "", 0, "the segments", str(error))
            )
            return []
        return _up_to_active(infos)

    def _places_by_name(self, directory: str) -> list[_Place]:
        try:
            names = self._disk.list_directory(directory)
        except OSError:
            return []
        firsts = first_indexes_of(names)
        # Without the last: a roll may be under way, and the one before it not sealed yet.
        return [_Place(each, f"{directory}/{segment_name(each)}", 0) for each in firsts[:-1]]

    def _damage_of(self, place: _Place, behind: _Place) -> list[Finding] | None:
        """What is wrong with a segment; None: it is not there any more."""
        source = SegmentFile(place.first_index, place.path, place.path)
        bound = begin_of(self._disk, SegmentFile(behind.first_index, behind.path, behind.path))
        task = Task(source, None, bound, is_last=False, with_records=False)
        try:
            examined = examine(self._disk, task, self._spend)
        except FileNotFoundError:
            return None
        except OSError as error:
            found = f"an error: {error.strerror}"
            return [Finding(Severity.DAMAGE, Flaw.UNREADABLE, place.path, 0, "a segment", found)]
        findings = [each for each in examined.findings if each.severity != Severity.NOTE]
        if not examined.survey.holes and examined.after.index != behind.first_index:
            findings.append(
                Finding(
                    Severity.DAMAGE,
                    Flaw.MISSING_SEGMENT,
                    place.path,
                    examined.end,
                    f"batches up to {behind.first_index}",
                    f"an end before batch {examined.after.index}",
                    Span(examined.after.index, behind.first_index),
                )
            )
        return findings

    def _spend(self, size_bytes: int) -> None:
        self.bytes_read += size_bytes
        self._pacer.spend(size_bytes)

    def _report(self, finding: Finding) -> None:
        if finding in self._reported:
            return
        if len(self._reported) >= MAX_REPORTED:
            self._reported.clear()
        self._reported.add(finding)
        self._on_finding(finding)


def _up_to_active(infos: Sequence[SegmentInfo]) -> list[_Place]:
    places = []
    for info in infos:
        places.append(_Place(info.first_index, info.path, info.generation))
        if info.is_active:
            break
    return places
