"""Looking at the sparse index beside a segment."""

from quorumlog.log.index_files import seal_of
from quorumlog.log.inspection.damage import Flaw, Severity
from quorumlog.log.inspection.examined import Examined, Task
from quorumlog.log.paths import index_path_of
from quorumlog.log.sparse_index import SparseIndex, decode_index, read_index
from quorumlog.ports import Disk


def load_index(disk: Disk, task: Task, result: Examined) -> SparseIndex | None:
    """The sparse index where there has to be a true one, and what is wrong with its file."""
    source, header, mark = task.source, result.header, result.mark
    path = index_path_of(source.home)
    if source.path != source.home or header is None or not disk.exists(path):
        return None
    if task.is_last:
        if mark is None or not result.was_closed or mark.index < source.first_index:
            # What is left of an earlier close is out of date, and known to be by its seal.
            return None
        seal = seal_of(header, mark.index, mark.position)
    elif mark is not None and mark.position == result.size_bytes:
        seal = seal_of(header, mark.index, result.size_bytes)
    elif task.bound is None or task.bound.index <= source.first_index:
        return None
    else:
        seal = seal_of(header, task.bound.index - 1, result.size_bytes)
    try:
        file = disk.open_readonly(path)
        try:
            raw = read_index(file)
        finally:
            file.close()
    except OSError as error:
        index_is_wrong(task, result, f"an error: {error.strerror}")
        return None
    index = decode_index(raw, seal, 1)
    if index is None:
        index_is_wrong(task, result, "a damaged one, or one of another state")
    return index


def index_is_wrong(task: Task, result: Examined, found: str) -> None:
    """Note that the index file is not what it should be."""
    result.is_index_wrong = True
    result.note(
        Severity.REPAIRABLE,
        Flaw.INDEX,
        0,
        "the sparse index of the segment",
        f"{found}: it is made again when it is needed",
        file=index_path_of(task.source.home),
    )
