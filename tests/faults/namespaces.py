"""A network namespace for each node: its own interface, address and routes, cut with ``ip``.

::

    this process ---- bridge .1 --+-- node .11
                                  +-- node .12
                                  +-- node .13
"""

import os
import secrets
import subprocess
from types import TracebackType
from typing import Self

from examples.local_cluster import Place

_FIRST_HOST = 11
_PORT = 7400
_GOSSIP_PORT = 7946


class NotPossible(Exception):
    """Namespaces cannot be made here; the text says why."""


class Namespaces:
    """``count`` namespaces that reach each other and this process; none is left afterwards."""

    def __init__(self, count: int) -> None:
        self._tag = secrets.token_hex(2)
        self._subnet = f"10.{secrets.randbelow(55) + 200}.{secrets.randbelow(255)}"
        self._count = count
        self._bridge = f"ql{self._tag}"

    def address(self, number: int) -> str:
        return f"{self._subnet}.{_FIRST_HOST + number}"

    def places(self) -> list[Place]:
        """Where the nodes of a cluster run, one in each."""
        return [
            Place(
                f"{self.address(number)}:{_PORT}",
                f"{self.address(number)}:{_GOSSIP_PORT}",
                launcher=("ip", "netns", "exec", self._name(number)),
            )
            for number in range(self._count)
        ]

    def __enter__(self) -> Self:
        """Raises NotPossible, with nothing left behind."""
        if os.geteuid() != 0:
            raise NotPossible("network namespaces need root")
        try:
            self._make()
        except FileNotFoundError as error:
            raise NotPossible("there is no ip command") from error
        except subprocess.CalledProcessError as error:
            self._remove()
            raise NotPossible(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def cut_off(self, number: int) -> None:
        """Nothing gets in or out any more: peers and clients alike."""
        self._ip("link", "set", self._outer(number), "down")

    def cut_one_way(self, source: int, target: int) -> None:
        """What ``source`` sends to ``target`` is lost. Of TCP, neither direction gets on."""
        self._inside(source, "route", "replace", "blackhole", f"{self.address(target)}/32")

    def cut_from_peers(self, number: int) -> None:
        """What it sends to any of the others is lost; this process still reaches it."""
        for peer in range(self._count):
            if peer != number:
                self.cut_one_way(number, peer)

    def heal(self) -> None:
        """All links are up, nothing is lost."""
        for number in range(self._count):
            self._ip("link", "set", self._outer(number), "up")
            self._inside(number, "route", "flush", "type", "blackhole")

    def _name(self, number: int) -> str:
        return f"ql{self._tag}-{number}"

    def _outer(self, number: int) -> str:
        return f"ql{self._tag}v{number}"

    def _make(self) -> None:
        self._ip("link", "add", self._bridge, "type", "bridge")
        self._ip("address", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        self._ip("link", "set", self._bridge, "up")
        for number in range(self._count):
            name, outer = self._name(number), self._outer(number)
            self._ip("netns", "add", name)
            self._ip("link", "add", outer, "type", "veth", "peer", "eth0", "netns", name)
            self._ip("link", "set", outer, "master", self._bridge, "up")
            self._inside(number, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            self._inside(number, "link", "set", "eth0", "up")
            self._inside(number, "link", "set", "lo", "up")

    def _remove(self) -> None:
        """Whatever there is of it; with a namespace its interfaces go, at both ends."""
        for number in range(self._count):
            self._try("netns", "delete", self._name(number))
            self._try("link", "delete", self._outer(number))
        self._try("link", "delete", self._bridge)

    def _inside(self, number: int, *arguments: str) -> None:
        self._ip("-netns", self._name(number), *arguments)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    def _try(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=False, capture_output=True)
