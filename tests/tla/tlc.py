"""TLC, the model checker of TLA+, where it is: Java on the PATH and the jar in ``.cache``."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
JAR: Final = HERE.parents[1] / ".cache/tla2tools.jar"
_TIMEOUT_S: Final = 100.0


def why_missing() -> str | None:
    """What TLC lacks here; None when it can run."""
    if shutil.which("java") is None:
        return "there is no java"
    if not JAR.exists():
        return f"{JAR} is not there: `make tla` fetches it"
    return None


def refused_at(directory: Path, events: Sequence[str]) -> int | None:
    """The number (from 0) of the first of ``events`` that Raft does not allow; None: it allows all.

    ``directory`` is empty and gets what TLC needs and writes.

    Raises:
        AssertionError: a property of Raft does not hold, or TLC could not work.
    """
    for name in ("Raft.tla", "RaftTrace.tla", "RaftTrace.cfg"):
        shutil.copy(HERE / name, directory)
    trace = ",\n".join(events)
    (directory / "TraceData.tla").write_text(
        f"---- MODULE TraceData ----\nTrace == <<\n{trace}\n>>\n====\n", encoding="utf-8"
    )
    command = ["java", "-XX:+UseSerialGC", "-Xss16m", "-cp", str(JAR), "tlc2.TLC"]
    options = ["-workers", "1", "-metadir", "states", "RaftTrace"]
    done = subprocess.run(
        command + options,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if "No error has been found" in done.stdout:
        return None
    positions = re.findall(r"^/\\ at = (\d+)$", done.stdout, re.MULTILINE)
    if "Deadlock reached" in done.stdout and positions:
        return int(positions[-1]) - 1
    raise AssertionError(done.stdout[-3000:] + done.stderr[-1000:])
