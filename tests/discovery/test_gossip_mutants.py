"""Tests that find nothing prove nothing: bugs of gossip protocols are put back, and found.

That each test passes without the bug, the run of it by itself says.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.gossip_mutant import GossipMutant
from fakes.gossip_mutants import GOSSIP_MUTANTS

PAGE: Final = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("mutant", GOSSIP_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_known_bug_is_found(mutant: GossipMutant, make_network: Callable[..., Any]) -> None:
    assert mutant.hunt({"make_network": make_network}) is not None


def test_the_documentation_names_every_bug_and_the_test_that_finds_it() -> None:
    rows = PAGE.read_text().splitlines()
    for mutant in GOSSIP_MUTANTS:
        test = mutant.found_by.split(".")[-1]
        assert any(mutant.name in row and f"`{test}`" in row for row in rows), mutant.name
