"""Optional libraries, as if they were not installed."""

import sys

import pytest


def without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing zstd fails until the test is over, by the name of any Python release."""
    for package in ("backports", "compression"):
        monkeypatch.setitem(sys.modules, package, None)
