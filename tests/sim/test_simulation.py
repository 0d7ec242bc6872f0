"""The whole cluster, from seeds. A failing seed prints the command that reproduces it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.simulation import run

SEEDS = 200
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_promise_is_broken_and_everything_goes_on_after_faults(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)


def test_one_seed_is_one_run() -> None:
    assert run(7) == run(7)
    assert run(7).digest != run(8).digest


def test_a_run_does_not_depend_on_hashes_or_addresses() -> None:
    tests = Path(__file__).parents[1]
    code = "from sim.simulation import run; print([run(seed).digest for seed in (3, 4, 5)])"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": f"{tests.parent / 'src'}:{tests}",
        }
        # Other sizes of the heap before the run: other addresses in it.
        padding = f"pad = [object() for _ in range({1000 * int(hash_seed)})]; "
        done = subprocess.run(
            [sys.executable, "-c", padding + code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
