"""The storage engine: the log in this process, without server and replicas."""

from pathlib import Path

from bench.figures import Figure, Scale
from bench.storage_append import measure_appends
from bench.storage_fetch import measure_fetches
from bench.storage_lookup import measure_lookups
from bench.storage_memory import memory_over_time
from bench.storage_open import measure_open
from bench.storage_sqlite import measure_against_sqlite
from bench.storage_synced import measure_synced_appends


def measure_storage(directory: Path, scale: Scale) -> list[Figure]:
    """Every figure of one log; needs 13 GB of disk at full scale."""
    return [
        *measure_appends(directory, scale),
        *measure_synced_appends(directory, scale),
        *measure_fetches(directory, scale),
        *measure_lookups(directory, scale),
        memory_over_time(directory, scale),
        *measure_open(directory, scale),
        *measure_against_sqlite(directory, scale),
    ]
