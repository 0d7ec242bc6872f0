"""TLC, the model checker of TLA+, where it is: Java on the PATH and the jar in ``.cache``."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tla.trace import Trace, trace_module

HERE: Final = Path(__file__).parent
JAR: Final = HERE.parents[1] / ".cache/tla2tools.jar"
TIMEOUT_S: Final = 100.0
"""For the traces of a test."""


def why_missing() -> str | None:
    """What TLC lacks here; None when it can run."""
    if shutil.which("java") is None:
        return "there is no java"
    if not JAR.exists():
        return f"{JAR} is not there: `make tla` fetches it"
    return None


def refusals(
    directory: Path, traces: Sequence[Trace], timeout_s: float = TIMEOUT_S
) -> list[int | None]:
    """For each of ``traces`` the first event, from 0, that Raft does not allow; None: none is.

    They are of the same nodes and voters; one Java process sees to all. ``directory`` is empty and
    gets what TLC needs and writes.

    Raises:
        AssertionError: a property of Raft does not hold, or TLC could not work.
        subprocess.TimeoutExpired: it took longer than ``timeout_s``.
    """
    for name in ("Raft.tla", "RaftTrace.tla", "RaftTrace.cfg"):
        shutil.copy(HERE / name, directory)
    (directory / "TraceData.tla").write_text(trace_module(traces), encoding="utf-8")
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss16m", "-cp", str(JAR)]
    # A trace that ends is a deadlock to TLC.
    done = subprocess.run(
        [*java, "tlc2.TLC", "-deadlock", "-workers", "1", "-metadir", "states", "RaftTrace"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if "No error has been found" not in done.stdout:
        raise AssertionError(done.stdout[-3000:] + done.stderr[-1000:])
    allowed = [0] * len(traces)
    for which, at in re.findall(r"^<<(\d+), (\d+)>>$", done.stdout, re.MULTILINE):
        allowed[int(which) - 1] = max(allowed[int(which) - 1], int(at))
    return [
        None if count == len(trace.events) else count
        for count, trace in zip(allowed, traces, strict=True)
    ]
