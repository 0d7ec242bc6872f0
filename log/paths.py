"""Names of the files of a log directory."""

from typing import Final

from quorumlog.types import Index

SEGMENT_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"

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
    stem = name.removesuffix(SEGMENT_SUFFIX)
    if stem == name or len(stem) != _DIGITS or not (stem.isascii() and stem.isdigit()):
        return None
    return Index(int(stem))


def index_path_of(segment_path: str) -> str:
    """The index file beside the segment at ``segment_path``."""
    return segment_path.removesuffix(SEGMENT_SUFFIX) + INDEX_SUFFIX
