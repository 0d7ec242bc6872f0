"""Who came, changed and went, for a program that reads it with ``async for``."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quorumlog.errors import QuorumlogError
from quorumlog.ports import Member, MemberState


class MemberEventKind(Enum):
    """What became of a member. JOINED stands before everything else of one that runs."""

    JOINED = "joined"
    """It runs: new to the reader, or back after it had failed or left."""
    CHANGED = "changed"
    """It still runs: other tags, another address, or it refuted a suspicion."""
    SUSPECTED = "suspected"
    """It does not answer and may yet refute."""
    FAILED = "failed"
    LEFT = "left"
    """Gone: without a word, or on purpose. With other tags or address afterwards it is one more."""


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """``member`` is what is known of it now: a JOINED one can be suspected already."""

    kind: MemberEventKind
    member: Member


_GONE: Final = {
    MemberState.FAILED: MemberEventKind.FAILED,
    MemberState.LEFT: MemberEventKind.LEFT,
}


class MemberEvents:
    """What one reader has not seen yet; made by ``Gossip.events``, for one event loop.

    Not a queue but a difference: of each member there is what the reader was told last, and what
    holds now. A reader that is behind gets one event for all that happened to a member since, and
    none if that cancelled out; so it never loses a member, and never waits with more than
    ``max_members`` of them.
    """

    def __init__(self, known: Callable[[], list[Member]], max_members: int) -> None:
        """Begins with an event for each of the ``known``."""
        self._known = known
        self._max_members = max_members
        self._told: dict[str, Member] = {}
        # In the order in which they first changed since the reader was told of them.
        self._waiting = {member.name: member for member in known()}
        self._woken = asyncio.Event()
        self._ended = False
        self._failure: QuorumlogError | None = None

    @property
    def waiting(self) -> int:
        """Members with something that was not read yet, at most ``max_members``."""
        return len(self._waiting)

    def note(self, member: Member) -> None:
        """``member`` is now as it stands here."""
        self._waiting[member.name] = member
        if len(self._waiting) > self._max_members or len(self._told) > self._max_members:
            self._drop_forgotten()
        self._woken.set()

    def end(self, failure: QuorumlogError | None = None) -> None:
        """Let the reader finish with what waits, and then with ``failure``. Idempotent."""
        self._ended = True
        self._failure = self._failure or failure
        self._woken.set()

    def __aiter__(self) -> "MemberEvents":
        return self

    async def __anext__(self) -> MemberEvent:
        """The next event; ends once the gossip member is closed and all that waited was read.

        Where gossip ended by itself (``Gossip.failure``) that is raised in the end.
        """
        while True:
            while self._waiting:
                name = next(iter(self._waiting))
                event = self._event(self._waiting.pop(name))
                if event is not None:
                    return event
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()

    def _event(self, member: Member) -> MemberEvent | None:
        """What is new about ``member`` for the reader, who is taken to be told of it."""
        told = self._told.get(member.name)
        if member == told:
            return None
        self._told[member.name] = member
        return MemberEvent(_kind(told, member), member)

    def _drop_forgotten(self) -> None:
        """Members that gossip has forgotten make room; of those it knows ``max_members``."""
        known = {member.name for member in self._known()}
        for members in (self._waiting, self._told):
            for name in members.keys() - known:
                del members[name]


def _kind(told: Member | None, now: Member) -> MemberEventKind:
    if now.state in _GONE:
        return _GONE[now.state]
    if told is None or told.state in _GONE:
        return MemberEventKind.JOINED
    if now.state is MemberState.SUSPECT and told.state is MemberState.ALIVE:
        return MemberEventKind.SUSPECTED
    return MemberEventKind.CHANGED
