"""Compression of a batch's body: zstd (RFC 8878), by a library that is imported when it is needed.

A compressed body is one zstd frame and nothing behind it. The header's ``body_crc`` and
``body_length`` are of the frame: whoever stores or forwards a batch need not know what is inside.
"""

import sys
from types import ModuleType
from typing import Final

from quorumlog.errors import CodecUnavailable, InvalidArgument, InvalidBatch
from quorumlog.log.batch import CODEC_NONE, CODEC_ZSTD, MAX_BODY_BYTES
from quorumlog.types import Buffer

CODECS: Final = {"zstd": CODEC_ZSTD}
"""The codecs by the names under which producers choose them."""

DEFAULT_LEVEL: Final = 3
MAX_LEVEL: Final = 22
"""The levels are 1 (fastest) to 22 (smallest; needs many times the memory and the time)."""

WINDOW_LOG_MAX: Final = 23
"""A frame may ask for a window of 8 MiB: what RFC 8878 §3.1.1.1.2 wants every decoder to have."""


def require_codec(codec: int) -> None:
    """Find out now whether bodies of ``codec`` can be written and read here.

    Raises:
        InvalidBatch: there is no such codec.
        CodecUnavailable: its library is not installed.
    """
    if codec == CODEC_ZSTD:
        _zstd()
    elif codec != CODEC_NONE:
        raise InvalidBatch(f"unknown codec {codec}: this release knows 0 (none) and 1 (zstd)")


def check_level(level: int) -> None:
    """Raise InvalidArgument unless ``level`` is one of zstd's levels, 1 to 22."""
    if not isinstance(level, int) or not 1 <= level <= MAX_LEVEL:
        raise InvalidArgument(f"the compression level is {level!r}, not 1 to {MAX_LEVEL}")


def compress(body: Buffer, level: int = DEFAULT_LEVEL) -> bytes:
    """``body`` as one zstd frame; about 3 ms for 1 MiB of JSON at level 3.

    Raises:
        CodecUnavailable: the library is not installed.
        InvalidArgument: there is no such level.
    """
    check_level(level)
    frame: bytes = _zstd().compress(body, level)
    return frame


def shrink(body: bytes, level: int = DEFAULT_LEVEL) -> tuple[bytes, int]:
    """What to store of ``body``, and with which codec: compressed only where that is smaller.

    Raises as :func:`compress` does.
    """
    frame = compress(body, level)
    if len(frame) < len(body):
        return frame, CODEC_ZSTD
    return body, CODEC_NONE


def decompress(body: Buffer, codec: int, limit_bytes: int = MAX_BODY_BYTES) -> Buffer:
    """The body that was stored as ``body``; without a codec that is ``body`` itself.

    Takes memory for ``limit_bytes`` and a window of 8 MiB at most, whatever the frame says of
    itself.

    Raises:
        InvalidBatch: an unknown codec, a damaged or truncated frame, something behind it, or more
            than ``limit_bytes`` in it.
        CodecUnavailable: the library is not installed.
    """
    if codec == CODEC_NONE:
        return body
    require_codec(codec)
    zstd = _zstd()
    bounds = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
    decompressor = zstd.ZstdDecompressor(options=bounds)
    try:
        plain: bytes = decompressor.decompress(body, limit_bytes + 1)
    except zstd.ZstdError as error:
        raise InvalidBatch(f"the body is not a zstd frame: {error}") from error
    if len(plain) > limit_bytes:
        raise InvalidBatch(f"the body has over {limit_bytes} bytes when it is decompressed")
    if not decompressor.eof:
        raise InvalidBatch("the body's zstd frame is truncated")
    if decompressor.unused_data:
        raise InvalidBatch(f"{len(decompressor.unused_data)} bytes stand behind the zstd frame")
    return plain


def _zstd() -> ModuleType:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise CodecUnavailable(
            "the library for zstd is not installed: pip install 'quorumlog[zstd]'"
        ) from error
    return zstd
