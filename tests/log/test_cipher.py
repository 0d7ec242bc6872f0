"""Encrypted segments: the format against an independent hand, and every way it must fail."""

import builtins
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastcrc.crc32 import iscsi as crc32c
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import (
    ConfigError,
    Corrupt,
    InvariantViolation,
    KeyMissing,
    ProtocolError,
    WrongKey,
)
from quorumlog.log.batch import (
    CODEC_ZSTD,
    ENCRYPTED,
    ENCRYPTION_OVERHEAD_BYTES,
    HEADER_SIZE,
    SPARSE,
    Batch,
    BatchHeader,
    Draft,
    Kind,
    check_body,
    decode_header,
)
from quorumlog.log.cipher import SegmentCipher, check_library, plain_header, sealed_size
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.segment_header import KeyStamp, SegmentHeader, decode_segment_header
from quorumlog.types import Index, Offset, Term

MASTER = bytes(range(32))
KEYS = {"2026-11": MASTER, "2026-05": b"o" * 32}
PLAIN_SEGMENT = SegmentHeader(
    first_index=Index(7),
    base_offset=Offset(70),
    prev_term=Term(2),
    prev_timestamp_ms=900,
    created_ms=1_000,
)
PATH = "data/00000000000000000007.log"


def counted() -> Callable[[int], bytes]:
    """A source of bytes that differ from call to call, and are the same in every run."""
    calls = 0

    def random_bytes(size_bytes: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_128(b"%d" % calls).digest(size_bytes)

    return random_bytes


def segment_of(ring: KeyRing) -> tuple[SegmentCipher, SegmentHeader, KeyStamp]:
    """A new encrypted segment."""
    cipher, header = SegmentCipher.create(ring, PLAIN_SEGMENT)
    assert cipher is not None
    assert header.key is not None
    return cipher, header, header.key


RING = KeyRing("2026-11", KEYS, counted())
CIPHER, SEGMENT, STAMP = segment_of(RING)


def batch_of(body: bytes, kind: Kind = Kind.RECORDS) -> Batch:
    draft = Draft.of(body, 1 if kind == Kind.RECORDS else 0, kind)
    return draft.stamp(index=9, term=3, base_offset=72, timestamp_ms=1_234)


def gap() -> Batch:
    header = BatchHeader(
        0, 0, 5, Index(9), Term(3), Offset(72), 1_234, kind=Kind.GAP, index_count=4
    )
    return Batch(header, header.encode(), b"")


def reread(batch: Batch) -> Batch:
    """``batch`` as a reader finds it on disk, its checksums checked."""
    raw = bytes(batch.head) + bytes(batch.body)
    header = decode_header(raw)
    check_body(header, raw[HEADER_SIZE:])
    return Batch(header, raw[:HEADER_SIZE], raw[HEADER_SIZE:])


def assert_same(found: Batch, expected: Batch) -> None:
    assert found.header == expected.header
    assert bytes(found.head) == bytes(expected.head)
    assert bytes(found.body) == bytes(expected.body)


KNOWN_TAG = "420855ade459b2cbbcffef2ec3ea18f1"
KNOWN_BODY = "4e9e3870a3187c0b898817f109a28f6c2ee3fc3163d6090bd4eb35a6c7436b2c0f919285"

CHECKSUM_BYTES = {*range(4, 8), *range(76, 80)}

BODIES = [0, 1, 100, 4096, 128 * 1024 - 1, 128 * 1024, 1024 * 1024, 4 * 1024 * 1024]
"""Both sides of the size from which a body is encrypted in place."""


@pytest.mark.parametrize("size_bytes", BODIES)
def test_what_is_stored_can_be_read_with_the_documented_steps_alone(size_bytes: int) -> None:
    batch = batch_of(hashlib.shake_128(b"body").digest(size_bytes))
    raw = SEGMENT.encode()
    material = HKDF(hashes.SHA256(), 64, STAMP.salt, b"quorumlog segment v1").derive(MASTER)
    at = raw.index(STAMP.tag)
    assert hmac.new(material[32:], raw[:at], "sha256").digest()[:16] == STAMP.tag

    stored = reread(CIPHER.seal(batch))
    head, body = bytes(stored.head), bytes(stored.body)
    plain = AESGCM(material[:32]).decrypt(body[:12], body[12:], head[:4] + head[8:76])
    assert plain == struct.pack("<I", batch.header.body_crc) + bytes(batch.body)


def test_a_segment_with_known_keys_and_nonces_has_known_bytes() -> None:
    """What a release wrote, the next one reads: these bytes never change."""
    cipher, _, stamp = segment_of(KeyRing("2026-11", KEYS, counted()))
    assert stamp.tag.hex() == KNOWN_TAG
    assert bytes(cipher.seal(batch_of(b"body")).body).hex() == KNOWN_BODY


@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from([Kind.RECORDS, Kind.NOOP, Kind.CONFIG, Kind.COMMAND]),
    producer=st.integers(0, 2**64 - 1),
    is_sparse=st.booleans(),
    codec=st.sampled_from([0, CODEC_ZSTD]),
)
def test_every_batch_comes_back_bit_for_bit(
    body: bytes, kind: Kind, producer: int, is_sparse: bool, codec: int
) -> None:
    header = replace(
        batch_of(body, kind).header,
        producer_id=producer,
        codec=codec,
        flags=SPARSE if is_sparse and kind == Kind.RECORDS else 0,
    )
    batch = Batch(header, header.encode(), body)
    stored = CIPHER.seal(batch)
    assert stored.size_bytes == batch.size_bytes + ENCRYPTION_OVERHEAD_BYTES
    assert stored.size_bytes == sealed_size(header)
    assert_same(CIPHER.unseal(reread(stored), PATH, 0), batch)


@pytest.mark.parametrize("size_bytes", BODIES)
def test_bodies_of_every_size_come_back(size_bytes: int) -> None:
    batch = batch_of(b"z" * size_bytes)
    assert_same(CIPHER.unseal(reread(CIPHER.seal(batch)), PATH, 0), batch)


def test_a_body_crc_that_was_wrong_when_it_came_is_kept() -> None:
    """The producer's checksum is the consumer's to check: storage does not mend it."""
    header = replace(batch_of(b"body").header, body_crc=1)
    batch = Batch(header, header.encode(), b"body")
    assert_same(CIPHER.unseal(reread(CIPHER.seal(batch)), PATH, 0), batch)


def test_a_gap_passes_as_it_is() -> None:
    assert sealed_size(gap().header) == gap().size_bytes
    assert CIPHER.seal(gap()) == gap()
    assert CIPHER.unseal(gap(), PATH, 0) == gap()


def test_the_same_batch_never_looks_the_same_twice() -> None:
    batch = batch_of(b"the same")
    bodies = {bytes(CIPHER.seal(batch).body) for _ in range(100)}
    assert len({body[:12] for body in bodies}) == 100
    assert len({body[12:] for body in bodies}) == 100


@pytest.mark.parametrize("size_bytes", [64, 256 * 1024])
def test_nothing_of_a_body_or_its_checksum_is_stored_in_clear(size_bytes: int) -> None:
    batch = batch_of(b"secret! " * (size_bytes // 8))
    stored = CIPHER.seal(batch)
    raw = bytes(stored.head) + bytes(stored.body)
    assert b"secret" not in raw
    assert struct.pack("<I", batch.header.body_crc) not in raw


def test_a_batch_is_not_encrypted_twice() -> None:
    with pytest.raises(InvariantViolation, match="encrypted already"):
        CIPHER.seal(CIPHER.seal(batch_of(b"body")))


def test_every_flipped_bit_is_found() -> None:
    """By a checksum, as anywhere; or by the cipher, if the checksums are made to fit."""
    stored = CIPHER.seal(batch_of(b"body"))
    raw = bytes(stored.head) + bytes(stored.body)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit // 8 in CHECKSUM_BYTES:
            continue
        found = forged(bytes(flipped))
        if found is None:
            continue
        with pytest.raises(Corrupt, match=f"{PATH} is damaged at byte 12288"):
            CIPHER.unseal(found, PATH, 12288)


def forged(raw: bytes) -> Batch | None:
    """``raw`` with checksums that fit, as who changes a file on purpose makes them; or None where
    the header cannot be read even so."""
    body = raw[HEADER_SIZE:]
    head = raw[:4] + struct.pack("<I", crc32c(body)) + raw[8:76]
    head += struct.pack("<I", crc32c(head))
    try:
        return Batch(decode_header(head), head, body)
    except ProtocolError:
        return None


def test_a_body_does_not_open_under_the_header_of_another_batch() -> None:
    one = CIPHER.seal(batch_of(b"first"))
    two = CIPHER.seal(Draft.of(b"other", 1).stamp(10, 3, 73, 1_234))
    moved = forged(bytes(two.head) + bytes(one.body))
    assert moved is not None
    with pytest.raises(Corrupt, match=r"batch 10, encrypted with key '2026-11'.*authenticate"):
        CIPHER.unseal(moved, PATH, 0)


def test_a_batch_of_another_segment_does_not_open() -> None:
    other, _, _ = segment_of(RING)
    with pytest.raises(Corrupt):
        CIPHER.unseal(other.seal(batch_of(b"body")), PATH, 0)


def test_a_plain_batch_in_an_encrypted_segment_is_refused() -> None:
    with pytest.raises(Corrupt, match="a batch that is not encrypted"):
        CIPHER.unseal(batch_of(b"forged, for who has no key"), PATH, 0)


@pytest.mark.parametrize("size_bytes", [0, 1, 31])
def test_a_body_too_short_to_be_encrypted_is_refused(size_bytes: int) -> None:
    header = replace(batch_of(b"").header, flags=ENCRYPTED, body_length=size_bytes)
    with pytest.raises(Corrupt):
        CIPHER.unseal(Batch(header, header.encode(), bytes(size_bytes)), PATH, 0)


def test_a_plain_segment_has_no_cipher() -> None:
    assert SegmentCipher.open(None, PLAIN_SEGMENT, PATH) is None
    assert SegmentCipher.open(RING, PLAIN_SEGMENT, PATH) is None
    assert SegmentCipher.create(None, PLAIN_SEGMENT) == (None, PLAIN_SEGMENT)
    assert SegmentCipher.create(None, SEGMENT) == (None, PLAIN_SEGMENT)


def test_the_stamp_survives_the_disk() -> None:
    assert decode_segment_header(SEGMENT.encode(), PATH) == SEGMENT


def test_every_segment_has_a_salt_of_its_own() -> None:
    assert len({segment_of(RING)[2].salt for _ in range(20)}) == 20


def test_a_segment_opens_with_a_key_that_is_not_active_any_more() -> None:
    rotated = RING.with_new_key("2027")
    cipher = SegmentCipher.open(rotated, SEGMENT, PATH)
    assert cipher is not None
    assert cipher.key_id == "2026-11"
    assert_same(cipher.unseal(CIPHER.seal(batch_of(b"old")), PATH, 0), batch_of(b"old"))


@pytest.mark.parametrize("ring", [None, KeyRing("2026-05", {"2026-05": b"o" * 32})])
def test_a_key_that_is_not_there_is_named(ring: KeyRing | None) -> None:
    with pytest.raises(KeyMissing, match=r"'2026-11'.*open it with the key file") as caught:
        SegmentCipher.open(ring, SEGMENT, PATH)
    assert PATH in str(caught.value)


def test_another_key_of_that_name_is_told_apart() -> None:
    with pytest.raises(WrongKey, match=r"'2026-11'.*open it with the key file") as caught:
        SegmentCipher.open(KeyRing.generate("2026-11"), SEGMENT, PATH)
    assert PATH in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"first_index": 8},
        {"base_offset": 71},
        {"prev_term": 3},
        {"prev_timestamp_ms": 901},
        {"created_ms": 1_001},
        {"generation": 1},
        {"key": replace(STAMP, salt=b"s" * 32)},
        {"key": replace(STAMP, tag=b"t" * 16)},
        {"key": replace(STAMP, key_id="2026-05")},
    ],
)
def test_a_changed_header_does_not_authenticate(changed: dict[str, Any]) -> None:
    with pytest.raises(WrongKey):
        SegmentCipher.open(RING, replace(SEGMENT, **changed), PATH)


def test_a_header_without_a_key_says_all_but_the_checksum() -> None:
    batch = batch_of(b"body")
    stored = reread(CIPHER.seal(batch))
    assert plain_header(stored.header) == replace(batch.header, body_crc=0)
    assert plain_header(batch.header) is batch.header
    assert plain_header(gap().header) == gap().header


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'quorumlog\[encryption\]'"):
        SegmentCipher.create(RING, PLAIN_SEGMENT)
    with pytest.raises(ConfigError, match=r"pip install 'quorumlog\[encryption\]'"):
        SegmentCipher.open(RING, SEGMENT, PATH)
    with pytest.raises(ConfigError, match=r"pip install 'quorumlog\[encryption\]'"):
        check_library()
