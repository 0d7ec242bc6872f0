"""A member made with HashiCorp's memberlist (``memberlist_member/main.go``), built when needed.

Debian's ``serf`` has a memberlist without labels, always speaks version 2 and always compresses.
"""

import asyncio
import base64
import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from quorumlog.discovery.wire.tags import encode_tags

LIMIT_S = 40.0
"""It gives a suspect up to 18 s where nobody else suspects it, longer on a slow machine."""

BUILD_LIMIT_S = 240.0
"""The first time the library is fetched and all of it compiled, later this takes seconds."""

_SOURCE = Path(__file__).parent / "memberlist_member"
_BUILT = Path(__file__).parents[2] / ".cache" / "memberlist_member"


@dataclass
class MemberlistMember:
    process: asyncio.subprocess.Process
    host: str
    heard: list[dict[str, str]] = field(default_factory=list)
    """What it printed so far."""

    async def until(self, event: str, **fields: str) -> dict[str, str]:
        """The first line that says so, of those it has printed or prints."""
        wanted = {"event": event, **fields}
        looked_at = 0
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    for line in self.heard[looked_at:]:
                        if wanted.items() <= line.items():
                            return line
                    looked_at = len(self.heard)
                    await self._read()
        except TimeoutError:
            pytest.fail(f"wanted {wanted}, it said {self.heard}")

    def leave(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def _read(self) -> None:
        line = b"" if self.process.stdout is None else await self.process.stdout.readline()
        if not line:
            pytest.fail(f"it has ended and said {self.heard}")
        self.heard.append(json.loads(line))


@cache
def built_member() -> Path:
    """The program; skips the test where it cannot be built."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no `go` on this machine to build a member with memberlist")
    _BUILT.parent.mkdir(exist_ok=True)
    with _BUILT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            subprocess.run(
                [go, "build", "-o", _BUILT, "."],
                cwd=_SOURCE,
                timeout=BUILD_LIMIT_S,
                check=True,
                capture_output=True,
                text=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"a member with memberlist cannot be built: {error}: {error.stderr!r:.300}")
    return _BUILT


async def start_member(
    stack: AsyncExitStack,
    program: Path,
    *options: str,
    name: str,
    host: str,
    port: int,
    join: str,
    key: bytes = b"",
) -> MemberlistMember:
    """It has the tag ``kind=foreign``. ``options`` are those of ``main.go``."""
    process = await asyncio.create_subprocess_exec(
        program,
        *_flags(name=name, host=host, port=str(port), join=join),
        *_flags(key=_base64(key), meta=_base64(encode_tags({"kind": "foreign"}))),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def stop() -> None:
        if process.returncode is None:
            process.kill()
        await process.communicate()

    stack.push_async_callback(stop)
    return MemberlistMember(process, host)


def _flags(**values: str) -> Iterable[str]:
    return [f"-{name}={value}" for name, value in values.items()]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
