"""Tests that find nothing prove nothing: bugs that storage engines had are put back, and found."""

from collections.abc import Callable

import pytest

from quorumlog.errors import QuorumlogError
from stored.evidence import compaction_cuts, half_writes, rot, stale_index, torn_marks
from stored.mutants import STORAGE_MUTANTS, StorageMutant


def _named(mutant: StorageMutant) -> str:
    return mutant.name


@pytest.mark.parametrize("mutant", STORAGE_MUTANTS, ids=_named)
def test_the_evidence_finds_a_known_bug(mutant: StorageMutant) -> None:
    with mutant.applied(), pytest.raises((AssertionError, QuorumlogError)):
        mutant.evidence()


@pytest.mark.parametrize("evidence", [compaction_cuts, half_writes, rot, stale_index, torn_marks])
def test_the_evidence_finds_nothing_where_there_is_no_bug(evidence: Callable[[], None]) -> None:
    """That of the scenarios is in test_crash.py."""
    evidence()
