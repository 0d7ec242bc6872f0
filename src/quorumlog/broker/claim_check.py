"""Asks the process at an address whether it is the node that gossip says is there.

What gossip says of a node, anybody can say. What goes into the metadata of it was heard from the
process itself, at that address. Design note 0005, section 6.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.topics import NodeInfo
from quorumlog.errors import QuorumlogError
from quorumlog.ports import Clock

MAX_ASKED: Final = 8
"""Addresses asked at a time; the others at the next look. Gossip can hold thousands of claims."""

ASK_TIMEOUT_S: Final = 1.0

ASK_AGAIN_S: Final = (1.0, 15.0)
"""After a refusal: the first wait, which doubles, and the longest."""

_ADDRESS = re.compile(r"([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
"""HOST:PORT; gRPC would take much else, a file's name among it."""

_log = structlog.get_logger()


async def objection_to(
    claim: NodeInfo, cluster_id: str, identify: Callable[[str], Awaitable[Introduction]]
) -> str:
    """What speaks against ``claim``, within about a second; empty: the process at its address says
    the same."""
    if not _ADDRESS.fullmatch(claim.address):
        return f"{claim.address!r} is not of the form HOST:PORT"
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            found = await identify(claim.address)
    except TimeoutError:
        return f"nobody answers at {claim.address} within {ASK_TIMEOUT_S:g} s"
    except QuorumlogError as error:
        return f"nobody answers at {claim.address}: {error}"
    if found.node != claim.id:
        return f"{claim.address} is node {found.node}"
    # Empty: it joins just now, and this cluster is the one that it asked.
    if found.cluster_id not in ("", cluster_id):
        return f"{claim.address} is of cluster {found.cluster_id}"
    if found.address != claim.address:
        return f"node {claim.id} answers at {claim.address}, and says that it is at {found.address}"
    return ""


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    wait_s: float
    ask_again_s: float


class ClaimCheck:
    def __init__(
        self, cluster_id: str, identify: Callable[[str], Awaitable[Introduction]], clock: Clock
    ) -> None:
        """``identify`` says who answers at an address; raises QuorumlogError where nobody does."""
        self._cluster_id = cluster_id
        self._identify = identify
        self._clock = clock
        self._refused: dict[NodeInfo, _Refusal] = {}

    async def true_of(self, claims: Sequence[NodeInfo]) -> list[NodeInfo]:
        """Those of ``claims`` whose address answers as that node; within about a second.

        One that was refused is asked again after a while. ``claims`` are all there are now: what
        was said against others is forgotten.
        """
        for claim in self._refused.keys() - set(claims):
            del self._refused[claim]
        now = self._clock.monotonic_s()
        due = [claim for claim in claims if self._due_s(claim) <= now]
        # Never asked, or the longest time ago: a crowd of false claims keeps no true one waiting.
        due = sorted(due, key=self._due_s)[:MAX_ASKED]
        reasons = await asyncio.gather(
            *(objection_to(claim, self._cluster_id, self._identify) for claim in due)
        )
        for claim, reason in zip(due, reasons, strict=True):
            self._note(claim, reason)
        return [claim for claim, reason in zip(due, reasons, strict=True) if not reason]

    def _due_s(self, claim: NodeInfo) -> float:
        refusal = self._refused.get(claim)
        return float("-inf") if refusal is None else refusal.ask_again_s

    def _note(self, claim: NodeInfo, reason: str) -> None:
        before = self._refused.pop(claim, None)
        if not reason:
            return
        shortest, longest = ASK_AGAIN_S
        wait_s = shortest if before is None else min(2 * before.wait_s, longest)
        self._refused[claim] = _Refusal(reason, wait_s, self._clock.monotonic_s() + wait_s)
        if before is None or before.reason != reason:
            _log.warning("node_claim_refused", node=claim.id, name=claim.name, reason=reason)
