"""The LZW decoder against vectors of Go's compress/lzw and a small encoder of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.lzw import compress
from quorumlog.discovery.wire.lzw import decompress
from quorumlog.errors import ProtocolError

LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        ("00a93c1152e48914274fa80824687061c183090302", b"TOBEORNOTTOBEORTOBEORNOT"),
        ("00c3081c182620", b"aaaaaaa"),
    ],
)
def test_what_go_compressed_is_read(packed: str, plain: bytes) -> None:
    assert decompress(bytes.fromhex(packed), LIMIT) == plain
    assert compress(plain) == bytes.fromhex(packed)


@given(st.binary(max_size=2000), st.integers(1, 40))
def test_what_was_compressed_comes_back(unit: bytes, repeat: int) -> None:
    data = (unit * repeat)[:20_000]
    assert decompress(compress(data), LIMIT) == data


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 3837, 3838, 3839, 3840, 100_000])
def test_every_table_size_up_to_a_full_one_is_read(size: int) -> None:
    data = bytes((value * value >> 3) & 255 for value in range(size))
    assert decompress(compress(data), LIMIT) == data


@pytest.mark.parametrize("clear_after", [1, 2, 253, 254, 255, 256, 3000])
def test_the_table_may_be_cleared_at_any_time(clear_after: int) -> None:
    data = bytes((value * 31) & 255 for value in range(9000))
    assert decompress(compress(data, clear_after=clear_after), LIMIT) == data


@given(st.binary(max_size=3000))
def test_garbage_is_a_typed_error_or_bounded(data: bytes) -> None:
    try:
        assert len(decompress(data, 5000)) <= 5000
    except ProtocolError:
        return


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = compress(b"\0" * 200_000)
    assert len(bomb) < 3000
    assert len(decompress(bomb, 200_000)) == 200_000
    with pytest.raises(ProtocolError, match="more than 199999 bytes"):
        decompress(bomb, 199_999)


def test_a_stream_without_its_end_is_refused() -> None:
    whole = compress(b"an honest message")
    for size in range(len(whole) - 1):
        with pytest.raises(ProtocolError, match="no end"):
            decompress(whole[:size], LIMIT)


def test_a_code_that_does_not_exist_yet_is_refused() -> None:
    clear_then_300 = (256 | 300 << 9).to_bytes(3, "little")
    with pytest.raises(ProtocolError, match="impossible code 300"):
        decompress(clear_then_300, LIMIT)
