"""What a leader's writers hear: of their own batch, or that nobody knows what became of it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import NotLeader, OutcomeUnknown
from quorumlog.replication.proposals import Proposals
from raft.memory_log import batches_of

terms = st.lists(st.integers(1, 4), min_size=1, max_size=8).map(sorted)


@given(proposed=terms, committed=terms, applied=st.integers(0, 8))
def test_a_write_is_acknowledged_by_its_term_and_index_never_by_its_index_alone(
    proposed: list[int], committed: list[int], applied: int
) -> None:
    async def scenario() -> None:
        proposals = Proposals()
        outcomes = [proposals.add(batch) for batch in batches_of(proposed)]
        for batch in batches_of(committed)[:applied]:
            proposals.committed(batch.header, f"offset of {batch.header.index}")
        heard = min(applied, len(committed))
        for index, (term, outcome) in enumerate(zip(proposed, outcomes, strict=True), 1):
            if index > heard:
                assert not outcome.done()
            elif committed[index - 1] == term:
                assert outcome.result() == f"offset of {index}"
            else:
                assert isinstance(outcome.exception(), NotLeader)
        proposals.fail(OutcomeUnknown("deposed"))
        assert proposals.pending_bytes == 0
        assert all(isinstance(each.exception(), OutcomeUnknown) for each in outcomes[heard:])

    asyncio.run(scenario())


async def test_after_it_was_deposed_what_another_leader_commits_acknowledges_nothing() -> None:
    proposals = Proposals()
    old, new = batches_of([1, 1]), batches_of([2, 2])
    outcomes = [proposals.add(batch) for batch in old]
    proposals.fail(OutcomeUnknown("deposed"))
    for batch in new:
        proposals.committed(batch.header, "an offset of somebody else's")
    for outcome in outcomes:
        with pytest.raises(OutcomeUnknown):
            outcome.result()
