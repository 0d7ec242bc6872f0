"""Encryption of one segment: its batches, and the proof that a key is the right one.

A segment has keys of its own, 64 bytes of HKDF-SHA256 (RFC 5869) from a key of the ring, the salt
in the segment's header and the text ``quorumlog segment v1``: 32 for AES-256-GCM (NIST SP
800-38D), then 32 for the header's tag, which is the first 16 bytes of HMAC-SHA256 of the header's
bytes before it.

An encrypted batch is stored as a batch as any other. Its header is that of the plain one with
the flag ENCRYPTED, another body_length, and checksums of what is stored. Its body:

======  ====  ==========  =========================================================================
offset  size  field       meaning
======  ====  ==========  =========================================================================
0       12    nonce       random
12      4+n   ciphertext  of the plain batch's body_crc and body
16+n    16    tag         authenticates the ciphertext and bytes 0 to 3 and 8 to 75 of the header
======  ====  ==========  =========================================================================

A nonce is random because no counter survives a truncation or a torn write for certain. Of 2^32
batches under one key two have the same nonce with a probability of 2^-33; a segment, and so a
key, holds far fewer. GAP batches have nothing to hide: they are stored as they are.
"""

import hmac
import struct
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import ConfigError, Corrupt, InvariantViolation, KeyMissing, WrongKey
from quorumlog.log.batch import (
    ENCRYPTED,
    ENCRYPTION_OVERHEAD_BYTES,
    HEADER_SIZE,
    Batch,
    BatchHeader,
    Kind,
)
from quorumlog.log.segment_header import SALT_BYTES, KeyStamp, SegmentHeader
from quorumlog.types import Buffer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

    from quorumlog.log.key_ring import KeyRing

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

_HASH: Final = "sha256"
_PURPOSE: Final = b"quorumlog segment v1"
_BIG_BODY_BYTES: Final = 128 * 1024
"""From here on memory costs more than calls do: the allocator gives each copy fresh pages."""

_CRC = struct.Struct("<I")
_BODY_CRC_AT: Final = 4
_BODY_LENGTH_AT: Final = 8
_FLAGS_AT: Final = 70
_HEADER_CRC_AT: Final = HEADER_SIZE - _CRC.size


class SegmentCipher:
    """Seals and opens the batches of one segment. Safe for any number of threads.

    Attributes:
        key_id: the name of its key in the ring.
    """

    __slots__ = ("_aead", "_aes", "_random_bytes", "key_id")

    def __init__(self, key_id: str, key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """``key`` is the segment's own."""
        aead, algorithms = _library()
        self.key_id = key_id
        self._aead: AESGCM = aead.AESGCM(key)
        self._aes: AES = algorithms.AES(key)
        self._random_bytes = random_bytes

    @staticmethod
    def create(
        ring: "KeyRing | None", header: SegmentHeader
    ) -> "tuple[SegmentCipher | None, SegmentHeader]":
        """The cipher of a new segment, with the active key, and its header with the stamp.

        None, and a header without one, where no key is active.

        The stamp fits no other header: a field that changes takes a new one.

        Args:
            ring: None: there are no keys.
            header: of the new segment; a stamp it has is not kept.

        Raises:
            ConfigError: the library that encrypts is not installed.
        """
        if ring is None or not ring.active:
            return None, replace(header, key=None)
        key = ring.key(ring.active)
        if key is None:
            raise InvariantViolation(f"the active key {ring.active!r} is not in its ring")
        salt = ring.random_bytes(SALT_BYTES)
        untagged = replace(header, key=KeyStamp(ring.active, salt, bytes(TAG_BYTES)))
        segment_key, tag = _derived(key, untagged)
        stamped = replace(header, key=KeyStamp(ring.active, salt, tag))
        return SegmentCipher(ring.active, segment_key, ring.random_bytes), stamped

    @staticmethod
    def open(ring: "KeyRing | None", header: SegmentHeader, path: str) -> "SegmentCipher | None":
        """The cipher of a segment that exists; None where it is not encrypted.

        Args:
            ring: None: there are no keys.
            header: of the segment, as it was read.
            path: of its file, for errors.

        Raises:
            KeyMissing: the key the header names is not in the ring.
            WrongKey: the header's tag was not made with that key.
            ConfigError: the library that decrypts is not installed.
        """
        stamp = header.key
        if stamp is None:
            return None
        key = None if ring is None else ring.key(stamp.key_id)
        if ring is None or key is None:
            have = "none was given" if ring is None else f"which has {', '.join(ring.names)}"
            raise KeyMissing(
                f"{path} is encrypted with key {stamp.key_id!r}, which is not in the key ring "
                f"({have}): open it with the key file that has this key"
            )
        segment_key, tag = _derived(key, header)
        if not hmac.compare_digest(tag, stamp.tag):
            raise WrongKey(
                f"{path} is encrypted with another key than the one the key ring calls "
                f"{stamp.key_id!r}, or its header was changed: open it with the key file it was "
                "written with"
            )
        return SegmentCipher(stamp.key_id, segment_key, ring.random_bytes)

    def seal(self, batch: Batch) -> Batch:
        """``batch`` as it is stored; ``ENCRYPTION_OVERHEAD_BYTES`` longer. A GAP as it is."""
        header = batch.header
        if header.kind == Kind.GAP:
            return batch
        if header.flags & ENCRYPTED:
            raise InvariantViolation(f"batch {header.index} is encrypted already")
        body_length = header.body_length + ENCRYPTION_OVERHEAD_BYTES
        flags = header.flags | ENCRYPTED
        head = bytearray(batch.head)
        _CRC.pack_into(head, _BODY_LENGTH_AT, body_length)
        head[_FLAGS_AT] = flags
        body = self._sealed(_CRC.pack(header.body_crc), batch.body, _associated(head))
        body_crc = crc32c(body)
        stored = _with(header, body_crc, body_length, flags)
        return Batch(stored, _finished(head, body_crc), body)

    def unseal(self, stored: Batch, path: str, position: int) -> Batch:
        """The batch that was sealed into ``stored``, bit for bit; a GAP as it is.

        Args:
            stored: its body's checksum need not have been checked.
            path: of the segment's file, for errors.
            position: of the batch in the file, for errors.

        Raises:
            Corrupt: it is not what was sealed with this key in this place of the log.
        """
        # Here, and not at the top: a log without keys works without the library.
        from cryptography.exceptions import InvalidTag

        header = stored.header
        if header.kind == Kind.GAP:
            return stored
        expected = f"batch {header.index}, encrypted with key {self.key_id!r}"
        body_length = header.body_length - ENCRYPTION_OVERHEAD_BYTES
        if not header.flags & ENCRYPTED or body_length < 0:
            raise Corrupt(path, position, expected, "a batch that is not encrypted")
        body = memoryview(stored.body)
        try:
            plain = self._aead.decrypt(
                body[:NONCE_BYTES], body[NONCE_BYTES:], _associated(stored.head)
            )
        except InvalidTag as error:
            raise Corrupt(path, position, expected, "bytes that do not authenticate") from error
        (body_crc,) = _CRC.unpack_from(plain)
        head = bytearray(stored.head)
        _CRC.pack_into(head, _BODY_LENGTH_AT, body_length)
        flags = head[_FLAGS_AT] = header.flags & ~ENCRYPTED
        opened = _with(header, body_crc, body_length, flags)
        return Batch(opened, _finished(head, body_crc), memoryview(plain)[_CRC.size :])

    def _sealed(self, body_crc: bytes, body: Buffer, associated: bytes) -> Buffer:
        """Nonce, ciphertext and tag."""
        nonce = self._random_bytes(NONCE_BYTES)
        if len(body) < _BIG_BODY_BYTES:
            return nonce + self._aead.encrypt(nonce, b"".join((body_crc, body)), associated)
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.modes import GCM

        sealed = bytearray(len(body) + ENCRYPTION_OVERHEAD_BYTES)
        view = memoryview(sealed)
        view[:NONCE_BYTES] = nonce
        encryptor = Cipher(self._aes, GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated)
        at = NONCE_BYTES + encryptor.update_into(body_crc, view[NONCE_BYTES:])
        encryptor.update_into(body, view[at:])
        encryptor.finalize()
        view[-TAG_BYTES:] = encryptor.tag
        return sealed


def plain_header(stored: BatchHeader) -> BatchHeader:
    """What is known without a key of the header that was sealed into ``stored``.

    All of it but ``body_crc``, which is encrypted with the body and 0 here. So this header is for
    reading, of indexes, offsets, times, sequences and sizes, and never to be encoded or checked
    against a body; :meth:`SegmentCipher.unseal` gives the whole one. A header that is not
    encrypted comes back as it is.
    """
    if not stored.flags & ENCRYPTED:
        return stored
    body_length = stored.body_length - ENCRYPTION_OVERHEAD_BYTES
    return _with(stored, 0, body_length, stored.flags & ~ENCRYPTED)


def sealed_size(header: BatchHeader) -> int:
    """Bytes a plain batch takes in an encrypted segment, header and body."""
    return header.size_bytes + (header.kind != Kind.GAP) * ENCRYPTION_OVERHEAD_BYTES


def _derived(key: bytes, header: SegmentHeader) -> tuple[bytes, bytes]:
    """The segment's own key, and the tag its header has to have, from a key of the ring."""
    stamp = header.key
    if stamp is None:
        raise InvariantViolation(f"segment {header.first_index} has no key stamp")
    # HKDF by the book (RFC 5869 §2.2, §2.3), which is shorter than its call.
    extracted = hmac.digest(stamp.salt, key, _HASH)
    segment_key = hmac.digest(extracted, _PURPOSE + b"\x01", _HASH)
    header_key = hmac.digest(extracted, segment_key + _PURPOSE + b"\x02", _HASH)
    return segment_key, hmac.digest(header_key, header.authenticated(), _HASH)[:TAG_BYTES]


def check_library() -> None:
    """Raise ConfigError, with the way out, when the library that encrypts is not installed."""
    _library()


def _library() -> tuple[ModuleType, ModuleType]:
    """The modules of ``cryptography``, an optional dependency."""
    try:
        from cryptography.hazmat.primitives.ciphers import aead, algorithms
    except ImportError as error:
        raise ConfigError(
            "encryption at rest needs the package cryptography: "
            "run `pip install 'quorumlog[encryption]'`"
        ) from error
    return aead, algorithms


def _with(header: BatchHeader, body_crc: int, body_length: int, flags: int) -> BatchHeader:
    """``header`` with these fields: ``dataclasses.replace``, at half its cost."""
    return BatchHeader(
        body_crc,
        body_length,
        header.record_count,
        header.index,
        header.term,
        header.base_offset,
        header.timestamp_ms,
        header.producer_id,
        header.sequence,
        header.producer_epoch,
        header.kind,
        header.codec,
        flags,
        header.index_count,
    )


def _associated(head: Buffer) -> bytes:
    """What of the stored header is authenticated with the body: all but the two checksums."""
    view = memoryview(head)
    return b"".join((view[:_BODY_CRC_AT], view[_BODY_LENGTH_AT:_HEADER_CRC_AT]))


def _finished(head: bytearray, body_crc: int) -> bytes:
    """``head`` with its checksums."""
    _CRC.pack_into(head, _BODY_CRC_AT, body_crc)
    _CRC.pack_into(head, _HEADER_CRC_AT, crc32c(memoryview(head)[:_HEADER_CRC_AT]))
    return bytes(head)
