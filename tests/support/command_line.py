"""The ``quorumlog`` command as a process, as a shell would run it."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.local_cluster import clean_environment

COMMAND = (sys.executable, "-m", "quorumlog")

_TIMEOUT_S = 60


def environment_for(servers: Sequence[str]) -> dict[str, str]:
    """This environment with ``servers`` for the client commands and no other setting of ours."""
    return clean_environment() | {"QUORUMLOG_SERVER": ",".join(servers)}


def run(
    servers: Sequence[str], *arguments: str, stdin: str = "", timeout_s: float = _TIMEOUT_S
) -> "subprocess.CompletedProcess[str]":
    """Run a client command to its end, whatever its exit code."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment_for(servers),
        check=False,
    )


def succeed(servers: Sequence[str], *arguments: str, stdin: str = "") -> str:
    """Run a client command that has to end with exit code 0; its standard output."""
    result = run(servers, *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def succeed_json(servers: Sequence[str], *arguments: str) -> Any:
    return json.loads(succeed(servers, *arguments, "--json"))


def start(servers: Sequence[str], *arguments: str) -> "subprocess.Popen[str]":
    """Start a client command with pipes for all three streams."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_for(servers),
    )


def serve(
    directory: Path,
    *flags: str,
    settings: Mapping[str, str] | None = None,
    timeout_s: float = 30,
) -> "subprocess.CompletedProcess[str]":
    """Run ``quorumlog serve`` in ``directory``, expecting that it ends by itself."""
    return subprocess.run(
        [*COMMAND, "serve", *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=directory,
        env=environment_for([]) | dict(settings or {}),
        check=False,
    )
