"""The same program in several fresh processes: what decides nothing in a run is different there."""

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def printed_by(code: str) -> set[str]:
    """What ``code`` prints, with other hashes of texts and other addresses of objects each time."""
    printed = set()
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": f"{_TESTS.parent / 'src'}:{_TESTS}",
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
        printed.add(done.stdout)
    return printed
