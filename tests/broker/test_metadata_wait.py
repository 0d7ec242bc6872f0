import asyncio

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_wait import wait_for_metadata

ALLOCATE = pb.Command(allocate_producer=pb.AllocateProducer()).SerializeToString()


async def test_it_looks_after_each_command_and_never_again_afterwards() -> None:
    state = MetadataState()
    looks: list[int] = []

    def condition() -> bool:
        looks.append(state.applied_index)
        return state.applied_index >= 2

    waiting = asyncio.create_task(wait_for_metadata(state, condition, 60.0))
    await asyncio.sleep(0)
    for index in (1, 2, 3):
        state.apply(ALLOCATE, index)
    assert await waiting
    assert looks == [0, 1, 2]
    state.apply(ALLOCATE, 4)
    assert looks == [0, 1, 2]


async def test_what_holds_already_is_not_waited_for() -> None:
    assert await wait_for_metadata(MetadataState(), lambda: True, 0.0)


async def test_it_gives_up_in_time_and_stops_looking() -> None:
    state = MetadataState()
    looks: list[int] = []

    def condition() -> bool:
        looks.append(state.applied_index)
        return False

    assert not await wait_for_metadata(state, condition, 0.001)
    looks.clear()
    state.apply(ALLOCATE, 1)
    assert looks == []
