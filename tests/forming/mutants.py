"""Known bugs of forming a cluster, put back one at a time: the simulation has to find each."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, Final
from unittest.mock import patch

from forming.scenario import Scenario
from quorumlog.api._pb import peer_pb2
from quorumlog.discovery.seeds import SeedFinder
from quorumlog.errors import QuorumlogError
from quorumlog.node import announcement
from quorumlog.node.bootstrap import Accepted, Bootstrap, NoSeeds
from quorumlog.node.identity import Identity, IdentityFile, Proposal, Seat
from sim.mutant import Mutant

# -- who has to agree ----------------------------------------------------------------------------


def _majority_is_enough(tell: Any) -> Any:
    async def hasty(self: Bootstrap, proposal: Proposal, method: str) -> list[int]:
        states: list[int] = await tell(self, proposal, method)
        if 2 * (states.count(Accepted) + 1) > len(proposal.seats):
            return [Accepted] * len(states)
        return states

    return hasty


def _whoever_is_seen(propose: Any) -> Any:
    """Consul's way: each begins with the set that it happens to see."""

    async def eager(self: Bootstrap) -> None:
        expect, self._expect = self._expect, max(1, min(self._expect, len(self._alive()) + 1))
        try:
            await propose(self)
        finally:
            self._expect = expect

    return eager


def _any_coordinator_decides(prepare: Any) -> Any:
    """The newest proposal counts: two coordinators that see different nodes both get along."""

    async def fickle(self: Bootstrap, message: Any) -> Any:
        if not self.identity.cluster_id and self.identity.accepted is not None:
            self.identity = replace(self.identity, accepted=None)
        return await prepare(self, message)

    return fickle


def _another_word_counts(ask_all: Any) -> Any:
    """Whoever is at a seat's address now: a wiped machine, a node of another cluster."""

    async def trusting(
        self: Bootstrap, seats: Iterable[Seat], method: str, message: Any
    ) -> list[int]:
        async def ask(seat: Seat) -> int:
            try:
                return int((await self._calls.call(seat.address, method, message, 2.0)).state)
            except QuorumlogError:
                return 0

        return list(await asyncio.gather(*(ask(seat) for seat in seats)))

    return trusting


# -- whether there is a cluster ------------------------------------------------------------------


def _seeds_count_as_tried(tried: Any) -> Any:
    return property(lambda finder: True)


def _accepts_untried(prepare: Any) -> Any:
    async def rash(self: Bootstrap, message: Any) -> Any:
        seeds, self._seeds = self._seeds, NoSeeds()
        try:
            return await prepare(self, message)
        finally:
            self._seeds = seeds

    return rash


def _accepts_beside_a_cluster(prepare: Any) -> Any:
    async def blind(self: Bootstrap, message: Any) -> Any:
        with patch.object(self, "_in_clusters", list):
            return await prepare(self, message)

    return blind


def _another_that_expects_one_is_waited_for(propose: Any) -> Any:
    async def polite(self: Bootstrap) -> None:
        others = [m.tags["id"] for m in self._alive() if m.tags["expect"] == "1"]
        if self._expect > 1 or self.identity.node_id < min(others, default="~"):
            await propose(self)

    return polite


def _alone_beside_seeds(may_form: Any) -> Any:
    def solitary(self: Bootstrap) -> bool:
        return self._seeds.tried

    return solitary


# -- what is promised ----------------------------------------------------------------------------


def _promise_in_memory(save: Any) -> Any:
    def forgetful(self: IdentityFile, identity: Identity) -> None:
        save(self, replace(identity, accepted=None))

    return forgetful


def _silence_is_an_abort(learn_outcome: Any) -> Any:
    async def impatient(self: Bootstrap, proposal: Proposal) -> None:
        query = peer_pb2.BootstrapQuery(cluster_id=proposal.cluster_id)
        others = self._others(proposal)
        if any(await self._ask_all(others, "BootstrapStatus", query)):
            await learn_outcome(self, proposal)
        else:
            async with self._lock:
                await self._keep(replace(self.identity, accepted=None))

    return impatient


def _joins_though_promised(round_: Any) -> Any:
    async def faithless(self: Bootstrap) -> None:
        promise, seen = self.identity.accepted, [m.tags["cluster"] for m in self._alive()]
        if promise is not None and any(seen):
            self.identity = replace(self.identity, accepted=None)
            await self._join()
            if not self.identity.cluster_id:
                self.identity = replace(self.identity, accepted=promise)
        else:
            await round_(self)

    return faithless


def _accepts_in_a_cluster(prepare: Any) -> Any:
    async def generous(self: Bootstrap, message: Any) -> Any:
        if not self.identity.cluster_id:
            return await prepare(self, message)
        return self._reply(Accepted)

    return generous


def _decided_before_written(enter: Any) -> Any:
    async def hasty(self: Bootstrap, cluster_id: str, voters: tuple[Seat, ...]) -> None:
        proposal = self.identity.accepted
        if proposal is not None and proposal.coordinator == self.identity.node_id:
            await self._tell(proposal, "BootstrapDecide")
        await enter(self, cluster_id, voters)

    return hasty


# -- what is written -----------------------------------------------------------------------------


def _begins_anew(load: Any) -> Any:
    """A second start forms again."""

    def forgetful(self: IdentityFile) -> Identity:
        return Identity(load(self).node_id, lists_groups=True)

    return forgetful


def _given_up_write_goes_on(keep: Any) -> Any:
    async def careless(self: Bootstrap, identity: Identity) -> None:
        await self._save(identity)
        self.identity = identity

    return careless


def _start_not_synced(load: Any) -> Any:
    def trusting(self: IdentityFile) -> Identity:
        if not self._disk.exists(self._path):
            return load(self)  # type: ignore[no-any-return]
        with patch.object(self._disk, "sync_directory", lambda path: None):
            return load(self)  # type: ignore[no-any-return]

    return trusting


def _written_in_place(save: Any) -> Any:
    def direct(self: IdentityFile, identity: Identity) -> None:
        file = self._disk.open(self._path, create=True)
        raw = json.dumps({"format": 1, **asdict(identity)}, indent=2).encode()
        file.truncate(0)
        file.write_at(0, [raw])
        file.sync()
        file.close()
        self._disk.sync_directory(self._directory)

    return direct


# -- progress ------------------------------------------------------------------------------------


def _only_the_coordinator_is_asked(ask_all: Any) -> Any:
    async def narrow(
        self: Bootstrap, seats: Iterable[Seat], method: str, message: Any
    ) -> list[int]:
        accepted = self.identity.accepted
        if accepted is not None and method == "BootstrapStatus":
            seats = [seat for seat in seats if seat.node_id == accepted.coordinator]
        states: list[int] = await ask_all(self, seats, method, message)
        return states

    return narrow


def _decision_not_asked_for(learn_outcome: Any) -> Any:
    async def passive(self: Bootstrap, proposal: Proposal) -> None:
        """The coordinator will tell."""

    return passive


def _never_given_up(coordinate: Any) -> Any:
    async def stubborn(self: Bootstrap, proposal: Proposal) -> None:
        self._attempts = -1
        await coordinate(self, proposal)

    return stubborn


def _asked_once(rounds: Any) -> Any:
    return 1


def _starters_do_not_count(not_of_another: Any) -> Any:
    return {""}


def _lossy(drawn: Scenario) -> Scenario:
    """Machines are lost, and with them coordinators."""
    return replace(drawn, faults=("bury", "ambush", "kill"), fault_interval_s=0.05)


def _dying(drawn: Scenario) -> Scenario:
    """Processes die, and then the power is cut."""
    return replace(drawn, faults=("ambush", "all_power"), fault_duration_s=8.0)


def _strange(drawn: Scenario) -> Scenario:
    """A node of another cluster takes addresses over."""
    return replace(drawn, faults=("address_taken", "bury", "all_power"), stranger=False)


def _late(drawn: Scenario) -> Scenario:
    """Three that expect three come late, and hear of each other as soon as of the cluster."""
    return replace(
        drawn,
        expect=3,
        founders=3,
        joiners=0,
        eager=0,
        late=3,
        late_expect=3,
        late_chain=True,
        late_slow=0.3,
        rumours=False,
        stranger=False,
        start_spread_s=0.0,
        faults=(),
    )


def _eager(drawn: Scenario) -> Scenario:
    """One founds the cluster, and others expect one, too."""
    return replace(drawn, expect=1, founders=1, wipes=0, joiners=3, eager=3, stranger=False)


MUTANTS: Final = (
    Mutant("a majority is enough", Bootstrap, "_tell", _majority_is_enough, within=10),
    Mutant("forms with whom it sees", Bootstrap, "_propose", _whoever_is_seen, within=10),
    Mutant("promises itself twice", Bootstrap, "prepare", _any_coordinator_decides, within=50),
    Mutant("another's word counts", Bootstrap, "_ask_all", _another_word_counts, within=10),
    Mutant(
        "does not wait for its seeds",
        SeedFinder,
        "tried",
        _seeds_count_as_tried,
        within=100,
        shape=_late,
    ),
    Mutant(
        "accepts before its seeds were tried",
        Bootstrap,
        "prepare",
        _accepts_untried,
        within=100,
        shape=_late,
    ),
    Mutant(
        "accepts beside a cluster",
        Bootstrap,
        "prepare",
        _accepts_beside_a_cluster,
        within=100,
        shape=_late,
    ),
    Mutant(
        "another that expects one is waited for",
        Bootstrap,
        "_propose",
        _another_that_expects_one_is_waited_for,
        within=10,
        shape=_eager,
    ),
    Mutant(
        "expects one, and forms beside its seeds",
        Bootstrap,
        "_may_form",
        _alone_beside_seeds,
        within=10,
        shape=_eager,
    ),
    Mutant("promise not written", IdentityFile, "save", _promise_in_memory, within=10),
    Mutant("silence is an abort", Bootstrap, "_learn_outcome", _silence_is_an_abort, within=10),
    Mutant("joins though promised", Bootstrap, "_round", _joins_though_promised, within=300),
    Mutant("accepts while in a cluster", Bootstrap, "prepare", _accepts_in_a_cluster, within=10),
    Mutant("told before it is written", Bootstrap, "_enter", _decided_before_written, within=10),
    Mutant("a second start begins anew", IdentityFile, "load_or_create", _begins_anew, within=10),
    Mutant("given up write goes on", Bootstrap, "_keep", _given_up_write_goes_on, within=250),
    Mutant(
        "what a start reads is not synced",
        IdentityFile,
        "load_or_create",
        _start_not_synced,
        within=300,
        shape=_dying,
    ),
    Mutant("identity written in place", IdentityFile, "save", _written_in_place, within=30),
    Mutant(
        "only the coordinator is asked",
        Bootstrap,
        "_ask_all",
        _only_the_coordinator_is_asked,
        within=250,
        shape=_lossy,
    ),
    Mutant(
        "decision not asked for", Bootstrap, "_learn_outcome", _decision_not_asked_for, within=10
    ),
    Mutant("never given up", Bootstrap, "_coordinate", _never_given_up, within=10),
    Mutant(
        "a stranger ends a start",
        announcement,
        "_ROUNDS",
        _asked_once,
        within=20,
        shape=_strange,
        also=Mutant(
            "who starts does not count",
            announcement,
            "_NOT_OF_ANOTHER",
            _starters_do_not_count,
            within=20,
        ),
    ),
)
