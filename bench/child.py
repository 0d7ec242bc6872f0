"""What has to happen in a process of its own, as ``python -m bench.child COMMAND DIRECTORY``."""

import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_RANDOM_READS: Final = 1000


def run_child(command: str, directory: Path) -> list[int]:
    """Run ``command`` on the log in ``directory``; returns the numbers it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.child", command, str(directory)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(word) for word in done.stdout.split()]


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(directory: Path) -> None:
    """Print what opening the log added, in bytes, and what reading all over it did."""
    from bench.logs import open_log

    gc.collect()
    before = resident_bytes()
    log = open_log(directory)
    opened = resident_bytes()
    offsets = random.Random(0)
    for _ in range(_RANDOM_READS):
        log.fetch(offsets.randrange(log.end_offset), 1, log.end_offset)
    print(opened - before, resident_bytes() - before)
    log.close()


def die(directory: Path) -> None:
    """Append a batch and end as a killed process does."""
    from bench.logs import append_many, draft_of, open_log

    append_many(open_log(directory), draft_of(100, 100), 1)
    os._exit(0)


_COMMANDS: Final[dict[str, Callable[[Path], None]]] = {"memory": memory, "die": die}

if __name__ == "__main__":
    _COMMANDS[sys.argv[1]](Path(sys.argv[2]))
