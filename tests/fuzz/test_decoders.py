"""Every decoder, whatever it is given: a value, or the error it documents; never much memory."""

import tracemalloc
from base64 import b64encode
from contextlib import suppress
from random import Random
from zlib import compress

import pytest

from fuzz.mutate import mutate
from fuzz.target import Target, WrongResult
from fuzz.targets import TARGETS
from quorumlog.broker import metadata_snapshot
from quorumlog.broker.metadata_snapshot import Contents
from quorumlog.errors import ProtocolError

MUTATIONS = 1_500
MEMORY_BYTES = 4 * 1024 * 1024
"""What decoding a few hundred bytes may take at most, for a moment."""


def _named(target: Target) -> str:
    return target.name


@pytest.mark.parametrize("target", TARGETS, ids=_named)
def test_what_the_encoder_made_is_decoded(target: Target) -> None:
    for seed in target.seeds():
        target.check(seed)
        target.check(target.repair(seed))


@pytest.mark.parametrize("target", TARGETS, ids=_named)
def test_mutations_give_a_value_or_the_documented_error(target: Target) -> None:
    rng = Random(target.name)
    seeds = target.seeds()
    decoded = 0
    for _ in range(MUTATIONS):
        data = mutate(seeds, rng)
        try:
            decoded += target.run(data)
        except Exception as error:
            error.add_note(f"{target.name}, deflated: {b64encode(compress(data)).decode()}")
            raise
    assert decoded > MUTATIONS // 100


@pytest.mark.parametrize("target", TARGETS, ids=_named)
def test_no_length_in_the_bytes_makes_a_decoder_take_memory(target: Target) -> None:
    rng = Random(f"{target.name} memory")
    seeds = target.seeds()
    tracemalloc.start()
    try:
        for _ in range(100):
            data = mutate(seeds, rng)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            # Whether the error is the right one is the business of the test above.
            with suppress(Exception):
                target.run(data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_a_decoder_with_a_bug_is_found() -> None:
    """One that trusts a length, one that takes what its encoder does not make."""

    def trusting(data: bytes) -> None:
        if not data:
            raise ProtocolError("empty")
        data[1 + data[0]]

    target = Target("trusting", trusting, (ProtocolError,), lambda: [b"\x02abcd"])
    rng = Random(1)
    mutations = [mutate(target.seeds(), rng) for _ in range(100)]
    with pytest.raises(IndexError):
        any(target.run(data) > 1 for data in mutations)

    def generous(data: bytes) -> None:
        raise WrongResult("an error of the target is not an error of the decoder")

    with pytest.raises(WrongResult):
        Target("generous", generous, (ProtocolError,), lambda: [b"x"]).run(b"x")


def _snapshot(old: bytes, new: bytes) -> bytes:
    return metadata_snapshot.encode(Contents(9, 2, 5, (), (), (), 0, ())).replace(old, new)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata-snapshot", _snapshot(b'"applied_index":9', b'"applied_index":1e999')),
        ("metadata-snapshot", b"[" * 100_000),
        ("key-file", b"a = " + b"[" * 5_000),
        ("key-file", b"a = " + b"1" * 5_000),
        ("config-file", b"listen = " + b"[" * 5_000),
        ("config-file", b"bootstrap_expect = " + b"1" * 5_000),
        ("identity", b"[" * 100_000),
        ("identity", b'{"format":1,"node_id":7,"cluster_id":[],"voters":[],"accepted":null}'),
        ("address", b"[]:7400"),
        ("address", b"[:7400"),
        ("server", b"a:" + b"1" * 5_000),
        ("start-on-command-line", b"1" * 5_000),
        ("start-on-command-line", b"0001-01-01T00:00+14:00"),
    ],
    ids=[
        "infinite number",
        "deep nesting",
        "deep keys",
        "long number",
        "deep settings",
        "long setting",
        "deep identity",
        "identity that is no text",
        "address without a host",
        "half a bracket",
        "long port",
        "long offset",
        "the first day",
    ],
)
def test_what_once_was_no_documented_error(name: str, data: bytes) -> None:
    (target,) = [each for each in TARGETS if each.name == name]
    target.run(data)
