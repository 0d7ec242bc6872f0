"""Random groups in bad weather: figure 3 of the paper holds throughout, and then they recover."""

import os

import pytest

from raft.lockstep import Lockstep

SEEDS = int(os.environ.get("RAFT_SEEDS", "300"))
CHUNKS = 6


def run_seed(seed: int) -> Lockstep:
    group = Lockstep(seed)
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
