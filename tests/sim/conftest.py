"""The hunt for all mutants takes a while: it runs when it is asked for (``-m mutants``)."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: put every known bug back; `make mutants`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "mutants" in str(config.getoption("markexpr")):
        return
    kept = [item for item in items if item.get_closest_marker("mutants") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
