"""Names of the files of a log directory."""

from collections.abc import Sequence
from typing import Final

from quorumlog.types import Index

SEGMENT_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
COMPACTED_SUFFIX: Final = ".compacted"
REMADE_SUFFIX: Final = ".remade"
SET_ASIDE_INFIX: Final = ".damaged-"
"""Between a directory's name and a number: a damaged log that was set aside for a new one."""

_DIGITS = 20


def parent_of(path: str) -> str:
    """The directory that holds ``path``."""
    parent, slash, _ = path.rpartition("/")
    if not slash:
        return "."
    return parent or "/"


def segment_name(first_index: int) -> str:
    return f"{first_index:0{_DIGITS}d}{SEGMENT_SUFFIX}"


def first_index_of(name: str) -> Index | None:
    """The first index a segment's name says, or None when it is not the name of a segment."""
    return _number(name[: -len(SEGMENT_SUFFIX)]) if name.endswith(SEGMENT_SUFFIX) else None


def index_path_of(segment_path: str) -> str:
    """The index file beside the segment at ``segment_path``."""
    return segment_path.removesuffix(SEGMENT_SUFFIX) + INDEX_SUFFIX


def first_index_of_index(name: str) -> Index | None:
    """The first index of the segment that an index file's name says, or None."""
    return _number(name[: -len(INDEX_SUFFIX)]) if name.endswith(INDEX_SUFFIX) else None


def compacted_name(first_index: int, next_index: int) -> str:
    """The file that is to stand for all segments from ``first_index`` up to ``next_index``."""
    return f"{first_index:0{_DIGITS}d}.{next_index:0{_DIGITS}d}{COMPACTED_SUFFIX}"


def compacted_range_of(name: str) -> tuple[Index, Index] | None:
    """First and next index in the name of a compacted file; None when it is not one."""
    if not name.endswith(COMPACTED_SUFFIX):
        return None
    first, _, behind = name.removesuffix(COMPACTED_SUFFIX).partition(".")
    first_index, next_index = _number(first), _number(behind)
    if first_index is None or next_index is None or next_index <= first_index:
        return None
    return first_index, next_index


def remade_name(first_index: int) -> str:
    """The file that is to stand for the empty segment of ``first_index``."""
    return f"{first_index:0{_DIGITS}d}{REMADE_SUFFIX}"


def is_remade_name(name: str) -> bool:
    return name.endswith(REMADE_SUFFIX) and _number(name.removesuffix(REMADE_SUFFIX)) is not None


def first_indexes_of(names: Sequence[str]) -> list[Index]:
    """What the names of segments among ``names`` say, in their order."""
    logs = [name for name in names if name.endswith(SEGMENT_SUFFIX)]
    return [first for name in logs if (first := first_index_of(name)) is not None]


def count_without_index(names: Sequence[str], last_first_index: int) -> int:
    """How many segments of ``names``, but for the last one, have no index file beside them."""
    indexed = {name[:_DIGITS] for name in names if name.endswith(INDEX_SUFFIX)}
    indexed.add(f"{last_first_index:0{_DIGITS}d}")
    logs = [name for name in names if name.endswith(SEGMENT_SUFFIX)]
    bare = [name for name in logs if name[:_DIGITS] not in indexed]
    return len(first_indexes_of(bare))


def _number(digits: str) -> Index | None:
    if len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return Index(int(digits))
