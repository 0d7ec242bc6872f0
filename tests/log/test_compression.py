"""Compressed bodies: what comes out went in, and no frame takes more memory than it may."""

import random
import tracemalloc

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import CodecUnavailable, ConfigError, InvalidArgument, InvalidBatch
from quorumlog.log.batch import CODEC_NONE, CODEC_ZSTD, MAX_BODY_BYTES
from quorumlog.log.compression import compress, decompress, require_codec, shrink
from support.libraries import without_zstd

LIMIT = 10_000
TEXT = b"the same words again and again, " * 100


@given(st.binary(max_size=2000), st.integers(1, 30), st.integers(1, 22))
def test_what_is_compressed_comes_back(seed: bytes, times: int, level: int) -> None:
    body = seed * times
    stored, codec = shrink(body, level)
    assert len(stored) <= len(body)
    assert (codec == CODEC_ZSTD) == (len(stored) < len(body))
    assert decompress(stored, codec, len(body)) == body
    assert decompress(memoryview(compress(body, level)), CODEC_ZSTD, len(body)) == body


def test_what_gets_no_smaller_is_stored_as_it_is() -> None:
    body = random.Random(1).randbytes(5000)
    assert len(compress(body)) > len(body)
    assert shrink(body) == (body, CODEC_NONE)


def test_the_limit_itself_is_allowed_and_one_byte_more_is_not() -> None:
    assert decompress(compress(bytes(LIMIT)), CODEC_ZSTD, LIMIT) == bytes(LIMIT)
    with pytest.raises(InvalidBatch, match=f"over {LIMIT} bytes"):
        decompress(compress(bytes(LIMIT + 1)), CODEC_ZSTD, LIMIT)


def bomb(window_log: int, size_bytes: int) -> bytes:
    """A frame that does not say how much is in it, and asks for a window of 2^``window_log``."""
    parameters = {
        zstd.CompressionParameter.compression_level: 1,
        zstd.CompressionParameter.window_log: window_log,
    }
    compressor = zstd.ZstdCompressor(options=parameters)
    piece = bytes(1 << 20)
    frame = [compressor.compress(piece) for _ in range(size_bytes // len(piece))]
    return b"".join([*frame, compressor.flush()])


@pytest.mark.parametrize("window_log", [10, 23])
def test_a_bomb_takes_no_more_memory_than_the_limit(window_log: int) -> None:
    frame = bomb(window_log, 64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidBatch, match="when it is decompressed"):
            decompress(frame, CODEC_ZSTD)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * MAX_BODY_BYTES


def test_a_frame_that_asks_for_a_larger_window_is_refused_whatever_is_in_it() -> None:
    with pytest.raises(InvalidBatch, match="not a zstd frame"):
        decompress(bomb(24, 2 << 20), CODEC_ZSTD)


def test_a_frame_cut_anywhere_is_an_error() -> None:
    frame = compress(TEXT)
    for end in range(len(frame)):
        with pytest.raises(InvalidBatch):
            decompress(frame[:end], CODEC_ZSTD, LIMIT)


def test_a_flipped_bit_is_an_error_or_stays_within_the_limit() -> None:
    frame = compress(TEXT)
    refused = 0
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            plain = decompress(flipped, CODEC_ZSTD, LIMIT)
        except InvalidBatch:
            refused += 1
        else:
            assert len(plain) <= LIMIT
    assert refused > len(frame)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_body_or_an_error(data: bytes) -> None:
    for stored in (data, compress(b"")[:4] + data):
        try:
            plain = decompress(stored, CODEC_ZSTD, LIMIT)
        except InvalidBatch:
            continue
        assert len(plain) <= LIMIT


@pytest.mark.parametrize("behind", [b"\0", compress(b"another"), b"\x50\x2a\x4d\x18\0\0\0\0"])
def test_a_body_is_one_frame_and_nothing_behind_it(behind: bytes) -> None:
    with pytest.raises(InvalidBatch, match=f"{len(behind)} bytes stand behind"):
        decompress(compress(TEXT) + behind, CODEC_ZSTD, LIMIT)


def test_an_unknown_codec_is_named() -> None:
    for codec in (2, 255):
        with pytest.raises(InvalidBatch, match=f"unknown codec {codec}"):
            decompress(b"", codec)
        with pytest.raises(InvalidBatch, match=f"unknown codec {codec}"):
            require_codec(codec)


@pytest.mark.parametrize("level", [0, -1, 23, 3.0, "3"])
def test_an_impossible_level_is_named(level: int) -> None:
    with pytest.raises(InvalidArgument, match="not 1 to 22"):
        compress(TEXT, level)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = compress(TEXT)
    without_zstd(monkeypatch)
    for use in (
        lambda: compress(TEXT),
        lambda: decompress(frame, CODEC_ZSTD),
        lambda: require_codec(CODEC_ZSTD),
    ):
        with pytest.raises(CodecUnavailable, match=r"pip install 'quorumlog\[zstd\]'") as caught:
            use()
        assert isinstance(caught.value, ConfigError)
    require_codec(CODEC_NONE)
    assert decompress(TEXT, CODEC_NONE) == TEXT
