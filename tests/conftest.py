"""Tests are the same every time. ``make explore`` has Hypothesis search where it has not been.

The hunt for all mutants takes a while: it runs when it is asked for (``-m mutants``).

The tests that start nodes come first. On several workers (``--dist worksteal``) they are one
worker's then, one after the other, and while they wait the others have the cores.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: put every known bug back; `make mutants`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("cluster") is None)
    if "mutants" in str(config.getoption("markexpr")):
        return
    kept = [item for item in items if item.get_closest_marker("mutants") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
