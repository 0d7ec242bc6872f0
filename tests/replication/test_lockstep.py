"""Random groups in bad weather: figure 3 of the paper holds throughout, and then they recover."""

import os
import subprocess
import sys
from collections.abc import Callable
from random import Random

import pytest

from raft.lockstep import Lockstep
from raft.weather import Weather, draw_lease_weather, draw_weather

SEEDS = int(os.environ.get("RAFT_SEEDS", "300"))
CHUNKS = 30


def run_seed(seed: int, weather: Callable[[Random], Weather] = draw_weather) -> Lockstep:
    group = Lockstep(seed, weather)
    try:
        group.run(faulty_s=1.5)
    except Exception as error:
        raise AssertionError(
            f"seed {seed} fails at {group.now:.6f} s: {error}; the last events were\n"
            + "\n".join(group.trace[-20:])
        ) from error
    return group


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_groups_stay_safe_and_recover(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        run_seed(seed)


def test_leases_are_safe_where_clocks_differ_and_the_leader_is_cut_off() -> None:
    answered = 0
    for seed in range(max(1, SEEDS // 20)):
        answered += run_seed(seed, draw_lease_weather).reads_answered
    assert answered > 100


def test_a_seed_gives_the_same_run_whatever_the_hash_seed() -> None:
    program = (
        "from raft.lockstep import Lockstep\n"
        "for seed in range(8):\n"
        "    group = Lockstep(seed)\n"
        "    group.run(faulty_s=0.5)\n"
        "    print(group.now, *group.trace, sep='\\n')\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert b"BecameLeader" in runs[0]
    assert runs[0] == runs[1]
