"""The nodes a client knows, and unary calls that any of them can answer."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from quorumlog.client.retry import Backoff, worth_another_attempt
from quorumlog.client.transport import Connection, Connector, MessageT
from quorumlog.errors import Closed, OutcomeUnknown, QuorumlogError, Unavailable

FIRST_ATTEMPT_TIMEOUT_S: Final = 2.5
"""Limit of the first attempt at a node: mostly another one answers when this one hangs."""

LONGEST_ATTEMPT_TIMEOUT_S: Final = 10.0
"""Limit of any attempt: a node that hangs must not use up the time of the whole call."""


def attempt_limit_s(failures: int, remaining_s: float, held_s: float = 0.0) -> float:
    """How long to wait for an answer that a node may hold for ``held_s``, after ``failures``."""
    # Not a power: of some hundred failures that would be no number any more.
    patience_s = min(FIRST_ATTEMPT_TIMEOUT_S * (1 + failures), LONGEST_ATTEMPT_TIMEOUT_S)
    return max(min(remaining_s, held_s + patience_s), 0.001)


@dataclass(slots=True)
class Doubt:
    """Whether an earlier attempt of a call may have been carried out unseen."""

    exists: bool = False


class Nodes:
    """One connection per address; the servers named by the user and those the cluster named.

    The number of connections is bounded by the number of addresses the cluster has had in this
    client's life.
    """

    def __init__(
        self,
        servers: Sequence[str],
        connector: Connector,
        rng: random.Random,
        connect_timeout_s: float,
    ) -> None:
        self._servers = tuple(servers)
        self._connector = connector
        self._rng = rng
        self._connect_timeout_s = connect_timeout_s
        self._connections: dict[str, Connection] = {}
        self._addresses: dict[str, str] = {}
        self._preferred: str | None = None
        self._answered = False
        self._closed = False

    @property
    def known(self) -> int:
        """How many nodes the cluster says it has; 0 before any node said so."""
        return len(self._addresses)

    def address_of(self, node_id: str) -> str | None:
        return self._addresses.get(node_id)

    def is_node(self, address: str) -> bool:
        """Whether the cluster itself names ``address`` as one of its nodes."""
        return address in self._addresses.values()

    def learn(self, addresses: dict[str, str]) -> None:
        """Replace what is known: node id to ``host:port``. Nothing learned: all stays as it is."""
        if addresses:
            self._addresses = dict(addresses)

    def candidates(self) -> list[str]:
        """Whom to ask, best first: who answered last, other nodes at random, the user's servers."""
        others = sorted(set(self._addresses.values()))
        self._rng.shuffle(others)
        preferred = [self._preferred] if self._preferred else []
        return list(dict.fromkeys([*preferred, *others, *self._servers]))

    def connection(self, address: str) -> Connection:
        if self._closed:
            raise Closed("this client is closed")
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = self._connector.connect(address)
        return connection

    async def ask(
        self,
        address: str,
        method: str,
        request: Message,
        response_type: type[MessageT],
        timeout_s: float,
    ) -> MessageT:
        """One attempt at one node; notes who answers."""
        try:
            response = await self.connection(address).unary(
                method, request, response_type, timeout_s
            )
        except QuorumlogError as error:
            if type(error) in (Unavailable, OutcomeUnknown):
                if self._preferred == address:
                    self._preferred = None
            else:
                self._answered = True
            raise
        self._answered = True
        self._preferred = address
        return response

    async def call(
        self,
        method: str,
        request: Message,
        response_type: type[MessageT],
        timeout_s: float,
        doubt: Doubt | None = None,
    ) -> MessageT:
        """Ask one node after the other until one answers; for idempotent requests.

        Gives up after ``timeout_s``, or after the connect timeout when no node has ever answered
        this
        client: then it is more likely that nobody is there.

        Args:
            doubt: is set when an attempt failed in a way that it may have been carried out.
        """
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        deadline_s = start_s + timeout_s
        backoff = Backoff(self._rng)
        rounds = 0
        while True:
            for address in self.candidates():
                limit_s = attempt_limit_s(rounds, deadline_s - loop.time())
                try:
                    return await self.ask(address, method, request, response_type, limit_s)
                except QuorumlogError as error:
                    if not worth_another_attempt(error):
                        raise
                    last_error = error
                    if doubt is not None:
                        doubt.exists = True
                if loop.time() >= deadline_s:
                    break
            delay_s = backoff.next_s()
            if loop.time() + delay_s >= start_s + self.patience_s(timeout_s):
                raise self.exhausted(last_error) from last_error
            await asyncio.sleep(delay_s)
            rounds += 1

    def patience_s(self, timeout_s: float) -> float:
        """How long to go on trying: ``timeout_s``, or less while nobody has ever answered."""
        return timeout_s if self._answered else min(timeout_s, self._connect_timeout_s)

    def exhausted(self, last_error: QuorumlogError) -> QuorumlogError:
        """The error to end a call with whose every attempt failed."""
        if self._answered:
            return last_error
        asked = ", ".join(self._servers)
        return Unavailable(
            f"no quorumlog node answers at {asked} ({last_error}): "
            "check that one runs there (`quorumlog serve`) and that the address is right"
        )

    async def close(self) -> None:
        self._closed = True
        connections = list(self._connections.values())
        self._connections.clear()
        for connection in connections:
            await connection.close()
