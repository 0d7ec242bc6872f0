"""The surveyors' histories: what they are made of, and that a stale end is found in them."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from history.operations import Append, EndOfLog, Read, Refused
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.replica import Replica
from sim.simulation import Simulation, SimulationFailed
from sim.swarm import Swarm

STALE_WITHIN = 80


def lonely(seed: int) -> Swarm:
    """Nothing but cuts, long ones, and many who ask."""
    return replace(
        Swarm.drawn(seed),
        faults=("isolate", "partition"),
        fault_interval_s=0.4,
        fault_duration_s=5.0,
        surveyors=4,
    )


def test_surveyors_append_read_and_ask_while_everything_breaks() -> None:
    simulation = Simulation(lonely(0))
    simulation.run()
    calls = [operation.call for operation in simulation.survey.recorder.operations]
    assert len({operation.client for operation in simulation.survey.recorder.operations}) == 5
    for kind in (Append, EndOfLog, Read):
        assert sum(isinstance(call, kind) for call in calls) >= 10
    assert any(isinstance(call, Refused) for call in calls)
    assert any(isinstance(call, Append) and call.expected == call.offset for call in calls)


@pytest.mark.mutants
def test_ends_told_by_leaders_that_ask_nobody_and_never_notice_that_they_are_alone_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asks_nobody(self: Replica) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.core.commit_index)
        return future

    monkeypatch.setattr(Replica, "read_barrier", asks_nobody)
    monkeypatch.setattr(Leadership, "hears_quorum", lambda self, now: True)
    for seed in range(STALE_WITHIN):
        try:
            Simulation(lonely(seed)).run()
        except SimulationFailed as failure:
            if "end_of_log" in str(failure):
                print(f"seed {seed} of {STALE_WITHIN}: {failure.error}")
                return
    pytest.fail(f"no stale end in {STALE_WITHIN} seeds")
