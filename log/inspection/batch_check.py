"""What can be wrong with a batch whose checksums are right."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from quorumlog.errors import ConfigError, Corrupt, InvalidBatch, ProtocolError, StorageError
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import (
    CODEC_NONE,
    ENCRYPTED,
    Batch,
    Fields,
    Kind,
    check_body,
    header_of,
)
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.records import parse_records
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import Entry, SparseIndex
from quorumlog.types import Buffer


@dataclass(slots=True)
class Counts:
    """What good batches hold. ``unchecked``: batches whose records could not be looked at."""

    batches: int = 0
    records: int = 0
    gaps: int = 0
    encrypted: int = 0
    unchecked: int = 0
    reasons: set[str] = field(default_factory=set)
    """Why: a few sentences at most."""

    def add(self, other: "Counts") -> None:
        self.batches += other.batches
        self.records += other.records
        self.gaps += other.gaps
        self.encrypted += other.encrypted
        self.unchecked += other.unchecked
        self.reasons |= other.reasons


class BatchCheck:
    """Looks at the batches of one segment, in order: give :meth:`visit` to a survey.

    Attributes:
        wrong_entry: an entry of the sparse index for a batch that it does not describe, or None.
        passed_entry: an entry for a place where no batch begins that was visited, or None.
    """

    def __init__(
        self,
        path: str,
        header: SegmentHeader | None,
        ring: KeyRing | None,
        index: SparseIndex | None,
        *,
        with_records: bool,
    ) -> None:
        """
        Args:
            header: of the segment; None: it is lost.
            index: the sparse index to compare with.
            with_records: decode the bodies too.
        """
        self.counts = Counts()
        self.wrong_entry: Entry | None = None
        self.passed_entry: Entry | None = None
        self._path = path
        self._is_encrypted = None if header is None else header.key is not None
        self._with_records = with_records
        self._entries: Iterator[Entry] = iter(()) if index is None else index.entries()
        self._entry = next(self._entries, None)
        self._open = self._opener(header, ring)

    def visit(self, position: int, fields: Fields, head: Buffer, body: Buffer) -> str | None:
        """What is wrong with the batch, or None; see :data:`.survey.Visit`."""
        kind, flags = fields[11], fields[13]
        entry = self._entry
        if entry is not None and position >= entry.position:
            self._compare(position, fields)
        is_gap = kind == Kind.GAP
        if not is_gap and self._is_encrypted not in (None, bool(flags & ENCRYPTED)):
            return f"a batch that is {'not ' if self._is_encrypted else ''}encrypted"
        counts = self.counts
        if self._with_records and not is_gap:
            wrong = self._look_inside(position, fields, head, body)
            if wrong is not None:
                return wrong
        counts.batches += 1
        counts.gaps += is_gap
        counts.encrypted += bool(flags & ENCRYPTED)
        if kind == Kind.RECORDS:
            counts.records += fields[3]
        return None

    def _look_inside(self, position: int, fields: Fields, head: Buffer, body: Buffer) -> str | None:
        kind, codec, flags = fields[11:14]
        if kind == Kind.RECORDS and codec == CODEC_NONE and not flags:
            return _wrong_count(fields[3], body)
        batch = Batch(header_of(fields), head, body)
        try:
            if flags & ENCRYPTED:
                if self._open is None:
                    self.counts.unchecked += 1
                    return None
                batch = self._open(batch, position)
                check_body(batch.header, batch.body)
            if kind == Kind.RECORDS:
                parse_records(batch.header, batch.body)
        except (InvalidBatch, ProtocolError, Corrupt) as error:
            return error.got if isinstance(error, Corrupt) else str(error)
        except ConfigError as error:
            # The library for its codec is not installed.
            self.counts.unchecked += 1
            self.counts.reasons.add(str(error))
        return None

    def _opener(
        self, header: SegmentHeader | None, ring: KeyRing | None
    ) -> "Callable[[Batch, int], Batch] | None":
        if header is None or header.key is None:
            return None
        if ring is None:
            self.counts.reasons.add("their segment is encrypted and no keys were given")
            return None
        try:
            cipher = SegmentCipher.open(ring, header, self._path)
        except (StorageError, ConfigError) as error:
            self.counts.reasons.add(str(error))
            return None
        if cipher is None:
            return None
        opened = cipher
        return lambda batch, position: opened.unseal(batch, self._path, position)

    def _compare(self, position: int, fields: Fields) -> None:
        index, term, base_offset, timestamp_ms = fields[4:8]
        truth = Entry(index, position, base_offset, timestamp_ms, term)
        while self._entry is not None and self._entry.position <= position:
            if self._entry.position < position:
                self.passed_entry = self.passed_entry or self._entry
            elif self._entry != truth:
                self.wrong_entry = self.wrong_entry or self._entry
            self._entry = next(self._entries, None)


def _wrong_count(record_count: int, body: Buffer) -> str | None:
    try:
        parsed = RecordBatch.FromString(bytes(body))
    except DecodeError as error:
        return f"a body that is no RecordBatch ({error})"
    if parsed.offset_deltas:
        return "a body that lists offsets in a batch that is not SPARSE"
    found = len(parsed.records)
    return None if found == record_count else f"{found} records, not {record_count}"
