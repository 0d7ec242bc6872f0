"""What needs a process of its own: ``python -m bench.child COMMAND DIRECTORY NUMBER``."""

import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_SMALL_SEGMENT_BYTES: Final = 1024 * 1024
_RETAINED_BYTES: Final = 8 * _SMALL_SEGMENT_BYTES
_BATCHES_PER_TURN: Final = 100
_RECORDS_PER_BATCH: Final = 100
_VALUE_BYTES: Final = 100


def run_child(command: str, directory: Path, number: int) -> list[int]:
    """Run ``command`` on the log in ``directory``; returns the numbers it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.child", command, str(directory), str(number)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [int(word) for word in done.stdout.split()]


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(directory: Path, reads: int) -> None:
    """Print what opening the log added, in bytes, and what so many reads all over it did."""
    from bench.logs import open_log

    gc.collect()
    before = resident_bytes()
    log = open_log(directory)
    opened = resident_bytes()
    offsets = random.Random(0)
    for _ in range(reads):
        log.fetch(offsets.randrange(log.end_offset), 1, log.end_offset)
    print(opened - before, resident_bytes() - before)
    log.close()


def grow(directory: Path, batches: int) -> None:
    """Print by how many bytes this process grew in the last three quarters of so many appends.

    Old segments are deleted all the while, so the log does not grow.
    """
    import quorumlog
    from quorumlog.log.cleaning.retention import Retention

    values = [bytes(_VALUE_BYTES)] * _RECORDS_PER_BATCH
    with quorumlog.open(
        directory,
        fsync="never",
        segment_bytes=_SMALL_SEGMENT_BYTES,
        retention=Retention(bytes=_RETAINED_BYTES),
    ) as log:
        before = resident_bytes()
        for number in range(batches):
            log.append_batch(values)
            if number % _BATCHES_PER_TURN == 0:
                log.housekeep()
            if number == batches // 4:
                before = resident_bytes()
        print(resident_bytes() - before)


def die(directory: Path, batches: int) -> None:
    """Append so many batches and end as a killed process does."""
    from bench.logs import append_many, draft_of, open_log

    append_many(open_log(directory), draft_of(100, 100), batches)
    os._exit(0)


_COMMANDS: Final[dict[str, Callable[[Path, int], None]]] = {
    "memory": memory,
    "grow": grow,
    "die": die,
}

if __name__ == "__main__":
    _COMMANDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
