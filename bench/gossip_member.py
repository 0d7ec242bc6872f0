"""A member of gossip as a process of its own: ``python -m bench.gossip_member NAME [SEED]``.

It uses the defaults, which are those for a local network, and prints a line each time something
becomes known: ``MONOTONIC_S EVENT NAME``, and first ``MONOTONIC_S listens HOST:PORT``, with the
time at which it began to. The clock is the machine's, so the times of several processes can be
compared. It leaves when its standard input ends.
"""

import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from quorumlog.discovery.gossip import Gossip

_PATIENCE_S: Final = 60.0
_NS: Final = 1e9


class MemberProcess:
    """One of them, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process, began_s: float, address: str) -> None:
        self.began_s = began_s
        """When its gossip was started, the interpreter's own start not included."""
        self.address = address
        self._process = process
        self._alive_since: dict[str, float] = {}

    @staticmethod
    async def start(name: str, seeds: Sequence[str] = ()) -> "MemberProcess":
        """Raises TimeoutError where it does not listen."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.gossip_member", name, *seeds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_PATIENCE_S):
            time_s, _, address = (await process.stdout.readline()).decode().split()
        return MemberProcess(process, float(time_s), address)

    async def sees(self, names: Sequence[str]) -> float:
        """Wait until it has heard that each of ``names`` runs; when it had heard of the last.

        Raises:
            TimeoutError: not within a minute.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(_PATIENCE_S):
            while not self._alive_since.keys() >= set(names):
                line = await self._process.stdout.readline()
                if not line:
                    raise EOFError("the member has ended")
                time_s, event, name = line.decode().split()
                if event in ("joined", "changed"):
                    self._alive_since.setdefault(name, float(time_s))
                else:
                    self._alive_since.pop(name, None)
        return max(self._alive_since[name] for name in names)

    @property
    def cpu_s(self) -> float:
        """What all its threads have used."""
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) / _NS for task in tasks)

    async def stop(self) -> None:
        """Have it leave, and wait until it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._process.communicate()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _say(time_s: float, event: str, name: str) -> None:
    print(f"{time_s:.6f} {event} {name}", flush=True)


async def _run(name: str, seeds: Sequence[str]) -> None:
    began_s = time.monotonic()
    gossip = await Gossip.start(
        name=name, bind=("127.0.0.1", 0), seeds=seeds, tags={}, rng=random.Random()
    )
    _say(began_s, "listens", "{}:{}".format(*gossip.address))

    async def tell() -> None:
        async for event in gossip.events():
            _say(time.monotonic(), event.kind.value, event.member.name)

    telling = asyncio.create_task(tell())
    await asyncio.to_thread(sys.stdin.read)
    await gossip.leave()
    await gossip.close()
    await telling


def main() -> None:
    import uvloop

    # By default what is logged goes where the lines go.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    uvloop.run(_run(sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    main()
