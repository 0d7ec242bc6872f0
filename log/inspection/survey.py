"""Walking over a segment that may be damaged anywhere: which batches are good, what is between.

Behind damage the next batch is searched for. Bytes inside of a record may look like a batch, so
what is found counts only if it fits to what is before and behind it: indexes and offsets are
dense, so a batch that does not belong there contradicts one that does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import HEADER_SIZE, MAGIC, Fields, decode_fields
from quorumlog.log.inspection.damage import ORIGIN, Point
from quorumlog.ports import File
from quorumlog.types import Buffer, Index, Offset, Term

MAX_HOLES: Final = 1_000
"""Damaged places of one segment that are told apart; the rest of it counts as one."""

_CHUNK_BYTES: Final = 1024 * 1024
_SECTOR_BYTES: Final = 4096
_MAGIC_BYTES: Final = MAGIC.to_bytes(4, "little")

Visit = Callable[[int, Fields, Buffer, Buffer], str | None]
"""Called with position, fields, header and body of each batch whose checksums are right and that
continues the one before; says what is wrong with it, or None. The buffers live for the call."""


@dataclass(frozen=True, slots=True)
class Run:
    """Good batches that follow one another: the bytes ``[position, end)`` of the file."""

    position: int
    end: int
    begin: Point
    after: Point


@dataclass(frozen=True, slots=True)
class Hole:
    """The bytes ``[position, end)`` hold no batch that can be trusted.

    Attributes:
        before: what the first missing batch had to continue.
        after: what the batch behind continues; None: there is none and nothing says how many
            are missing. Of its term and timestamp only the lower bound is known.
        expected, found: what had to be at ``position`` and what is.
    """

    position: int
    end: int
    before: Point
    after: Point | None
    expected: str
    found: str


@dataclass(slots=True)
class Survey:
    """What a segment holds, in order. ``after`` is what a batch behind it continues."""

    runs: list[Run] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    after: Point = ORIGIN
    end: int = 0
    """Behind the last good batch."""


class SafeReader:
    """Reads a file though the disk refuses parts of it: those read as zeros, and are noted."""

    def __init__(self, file: File, progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress
        self._told = 0
        self._unreadable: dict[int, str] = {}
        """Why a sector cannot be read, by its position."""

    def read_at(self, position: int, size_bytes: int) -> bytes:
        """As of a file.

        Raises:
            IsADirectoryError: it is none.
        """
        try:
            data = self._file.read_at(position, size_bytes)
        except IsADirectoryError:
            raise
        except OSError:
            data = self._read_by_sectors(position, size_bytes)
        if position + len(data) > self._told:
            self._progress(position + len(data) - max(self._told, position))
            self._told = position + len(data)
        return data

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def unreadable(self) -> list[tuple[int, int, str]]:
        """Position and size of what the disk refused, and why; adjoining sectors as one."""
        places: list[tuple[int, int, str]] = []
        for position in sorted(self._unreadable):
            reason = self._unreadable[position]
            size_bytes = min(_SECTOR_BYTES, self.size_bytes() - position)
            if places and sum(places[-1][:2]) == position and places[-1][2] == reason:
                begin, before, _ = places.pop()
                places.append((begin, before + size_bytes, reason))
            else:
                places.append((position, size_bytes, reason))
        return places

    def _read_by_sectors(self, position: int, size_bytes: int) -> bytes:
        parts = []
        end = min(position + size_bytes, self._file.size_bytes())
        while position < end:
            sector = position - position % _SECTOR_BYTES
            length = min(sector + _SECTOR_BYTES, end) - position
            try:
                parts.append(self._file.read_at(position, length))
            except OSError as error:
                parts.append(bytes(length))
                self._unreadable[sector] = error.strerror or str(error)
            position += length
        return b"".join(parts)


def survey(
    reader: SafeReader,
    position: int,
    begin: Point,
    end: int,
    bound: Point | None,
    visit: Visit,
) -> Survey:
    """Look at all of ``[position, end)``, where batches have to stand one behind the other.

    Args:
        begin: what the first batch continues.
        bound: what the batch behind ``end`` continues, where that is known.
        visit: sees every good batch, in order. After damage it may see some that turn out not
            to belong there.
    """
    return _Walk(reader, position, end, bound, visit).run(begin)


def follow(
    reader: SafeReader, position: int, begin: Point, end: int, visit: Visit
) -> tuple[Run, str | None]:
    """The good batches from ``position`` to the first that is not, and what is wrong with that."""
    run, stop = _Walk(reader, position, end, None, visit).follow(position, begin)
    return run, None if stop is None else stop.found


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a run ended. ``behind``: where the next batch stands, if the header is intact."""

    position: int
    expected: str
    found: str
    behind: int | None = None
    after: Point | None = None


class _Walk:
    def __init__(
        self, reader: SafeReader, position: int, end: int, bound: Point | None, visit: Visit
    ) -> None:
        self._reader = reader
        self._position = position
        self._end = end
        self._bound = bound
        self._visit = visit
        self._chunk = memoryview(b"")
        self._chunk_position = 0

    def run(self, begin: Point) -> Survey:
        runs: list[Run] = []
        stops: list[_Stop] = []
        position, point = self._position, begin
        # What was found by a search may turn out not to belong there: the next search does not
        # build on it.
        trusted: Point | None = None
        while position < self._end and len(stops) < MAX_HOLES:
            run, stop = self.follow(position, point)
            if run.end > run.position:
                runs.append(run)
                point, position = run.after, run.end
            if stop is None:
                break
            stops.append(stop)
            if stop.behind is not None and stop.after is not None:
                point, position = stop.after, stop.behind
                continue
            trusted = trusted or point
            found = self._search(position, trusted)
            if found is None:
                break
            position, point = found
        return self._sum_up(begin, runs, stops)

    def follow(self, position: int, point: Point) -> tuple[Run, _Stop | None]:
        """The good batches from ``position`` on, and why they end; None at the end."""
        begin, start = point, position
        index, offset = point.index, point.offset
        term, timestamp_ms = point.term, point.timestamp_ms
        stop: _Stop | None = None
        while position < self._end:
            expected = f"batch {index} at offset {offset}"
            try:
                fields = decode_fields(self._view(position, HEADER_SIZE), 0)
            except ProtocolError as error:
                stop = _Stop(position, expected, str(error))
                break
            _, body_crc, body_length, count, its_index, its_term, its_offset, its_ms, *rest = fields
            is_next = its_index == index and its_offset == offset
            if not is_next or its_term < term or its_ms < timestamp_ms:
                found = (
                    f"batch {its_index} at offset {its_offset}, term {its_term} after {term}, "
                    f"time {its_ms} after {timestamp_ms}"
                )
                stop = _Stop(position, expected, found)
                break
            behind = position + HEADER_SIZE + body_length
            after = Point(Index(index + rest[-1]), Offset(offset + count), Term(its_term), its_ms)
            if behind > self._end or not self._is_within(after):
                stop = _Stop(position, expected, f"a batch that ends at {behind}")
                break
            view = self._view(position, behind - position)
            body = view[HEADER_SIZE:]
            wrong = None
            if len(body) < body_length:
                wrong = f"{len(body)} of the {body_length} bytes of its body"
            elif body_crc != (computed := crc32c(body)):
                wrong = f"body checksum {computed:#010x}, not {body_crc:#010x}"
            else:
                wrong = self._visit(position, fields, view[:HEADER_SIZE], body)
            if wrong is not None:
                stop = _Stop(position, expected, wrong, behind, after)
                break
            position = behind
            index, offset, term, timestamp_ms = after.index, after.offset, after.term, its_ms
        return Run(start, position, begin, Point(index, offset, term, timestamp_ms)), stop

    def _view(self, position: int, size_bytes: int) -> memoryview:
        at = position - self._chunk_position
        if at < 0 or at + size_bytes > len(self._chunk):
            wanted = max(size_bytes, min(_CHUNK_BYTES, self._end - position))
            self._chunk = memoryview(self._reader.read_at(position, wanted))
            self._chunk_position = position
            at = 0
        return self._chunk[at : at + size_bytes]

    def _search(self, position: int, point: Point) -> tuple[int, Point] | None:
        """Where the next batch stands that may continue the log behind a hole."""
        at = position
        while at < self._end:
            chunk = self._reader.read_at(at, min(_CHUNK_BYTES, self._end - at))
            hit = chunk.find(_MAGIC_BYTES)
            while hit >= 0:
                place = at + hit
                begin = self._candidate(place, point)
                if begin is not None:
                    return place, begin
                hit = chunk.find(_MAGIC_BYTES, hit + 1)
            if len(chunk) <= len(_MAGIC_BYTES):
                break
            at += len(chunk) - len(_MAGIC_BYTES) + 1
        return None

    def _candidate(self, place: int, point: Point) -> Point | None:
        """What the batch at ``place`` continues, if it is whole and can stand behind ``point``.

        A damaged one is skipped at least: its index is not the next one.
        """
        try:
            fields = decode_fields(self._reader.read_at(place, HEADER_SIZE), 0)
        except ProtocolError:
            return None
        _, body_crc, body_length, count, index, term, offset, timestamp_ms, *_, indexes = fields
        is_later = index > point.index and offset >= point.offset
        if not is_later or term < point.term or timestamp_ms < point.timestamp_ms:
            return None
        after = Point(Index(index + indexes), Offset(offset + count), Term(term), timestamp_ms)
        body_at = place + HEADER_SIZE
        if body_at + body_length > self._end or not self._is_within(after):
            return None
        body = self._reader.read_at(body_at, body_length)
        if len(body) < body_length or crc32c(body) != body_crc:
            return None
        return Point(Index(index), Offset(offset), point.term, point.timestamp_ms)

    def _is_within(self, point: Point) -> bool:
        bound = self._bound
        if bound is None:
            return True
        is_within = point.index <= bound.index and point.offset <= bound.offset
        return is_within and point.term <= bound.term and point.timestamp_ms <= bound.timestamp_ms

    def _sum_up(self, begin: Point, runs: list[Run], stops: list[_Stop]) -> Survey:
        """Drop runs that contradict others, and make the holes between those that stay."""
        kept = self._choose(runs)
        result = Survey(kept, [], begin, self._position)
        for run in kept:
            if run.position > result.end or not _precedes(run.begin, result.after):
                hole = self._hole(stops, result.end, run.position, result.after, run.begin)
                result.holes.append(hole)
            result.after, result.end = run.after, run.end
        if result.end < self._end:
            after = self._bound
            if after is None and stops and stops[-1].behind == self._end:
                after = stops[-1].after
            result.holes.append(self._hole(stops, result.end, self._end, result.after, after))
        return result

    def _choose(self, runs: list[Run]) -> list[Run]:
        """The runs that fit together and have the most bytes.

        One that begins where the segment does, or reaches its end, counts more than all others.
        """
        sure = self._end
        best: list[tuple[int, int]] = []
        """For each run the weight of the best choice that ends with it, and the run before."""
        for number, run in enumerate(runs):
            weight, before = 0, -1
            for earlier in range(number):
                if best[earlier][0] > weight and _precedes(runs[earlier].after, run.begin):
                    weight, before = best[earlier][0], earlier
            weight += run.end - run.position
            weight += sure * ((run.position == self._position) + (run.end == self._end))
            best.append((weight, before))
        kept: list[Run] = []
        number = max(range(len(runs)), key=lambda each: best[each][0], default=-1)
        while number >= 0:
            kept.append(runs[number])
            number = best[number][1]
        kept.reverse()
        return kept

    def _hole(
        self, stops: list[_Stop], position: int, end: int, before: Point, after: Point | None
    ) -> Hole:
        if after is not None:
            after = replace(
                after,
                term=max(after.term, before.term),
                timestamp_ms=max(after.timestamp_ms, before.timestamp_ms),
            )
        expected = f"batch {before.index} at offset {before.offset}"
        found = "no batch that fits to those around"
        if self._reader.size_bytes() <= position:
            found = "the end of the file"
        else:
            for stop in stops:
                if stop.position == position:
                    expected, found = stop.expected, stop.found
        return Hole(position, end, before, after, expected, found)


def _precedes(after: Point, begin: Point) -> bool:
    return after.index <= begin.index and after.offset <= begin.offset
