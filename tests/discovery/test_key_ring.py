"""The key ring and its file: what changes, what is refused, and that no key is shown."""

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.key_ring import MAX_KEYS, GossipKeys
from quorumlog.errors import ConfigError, InvalidArgument

OLD, NEW, THIRD = (bytes([value]) * 32 for value in (1, 2, 3))


def write(path: Path, content: object, mode: int = 0o600) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return str(path)


def b64(*keys: bytes) -> list[str]:
    return [base64.b64encode(key).decode() for key in keys]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gossip-keys.json"


def test_a_rotation_goes_through_the_file_step_by_step(path: Path) -> None:
    ring = GossipKeys.load(write(path, b64(OLD)))
    for change, expected in (
        (lambda: ring.install(NEW), (OLD, NEW)),
        (lambda: ring.use(NEW), (NEW, OLD)),
        (lambda: ring.remove(OLD), (NEW,)),
    ):
        change()
        assert ring.keys == expected
        assert GossipKeys.load(str(path)).keys == expected
        assert json.loads(path.read_text()) == b64(*expected)
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_a_step_done_twice_changes_nothing() -> None:
    ring = GossipKeys([OLD, NEW])
    ring.install(NEW)
    ring.use(OLD)
    ring.remove(THIRD)
    assert ring.keys == (OLD, NEW)


def test_a_step_that_would_lose_the_ring_is_refused() -> None:
    ring = GossipKeys([OLD])
    with pytest.raises(InvalidArgument, match="primary"):
        ring.remove(OLD)
    with pytest.raises(InvalidArgument, match="install it first"):
        ring.use(NEW)
    with pytest.raises(InvalidArgument, match="15 bytes"):
        ring.install(b"k" * 15)
    assert ring.keys == (OLD,)


def test_a_full_ring_takes_no_more() -> None:
    ring = GossipKeys([bytes([value]) * 16 for value in range(MAX_KEYS)])
    with pytest.raises(InvalidArgument, match="1 to 16 keys"):
        ring.install(NEW)


def test_a_file_that_cannot_be_written_leaves_the_ring_as_it_was(path: Path) -> None:
    ring = GossipKeys.load(write(path, b64(OLD)))
    (path.parent / (path.name + ".new")).mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        ring.install(NEW)
    assert ring.keys == (OLD,)
    assert GossipKeys.load(str(path)).keys == (OLD,)


def test_what_a_process_left_half_written_is_replaced(path: Path) -> None:
    ring = GossipKeys.load(write(path, b64(OLD)))
    write(path.parent / (path.name + ".new"), "[")
    ring.install(NEW)
    assert GossipKeys.load(str(path)).keys == (OLD, NEW)


def test_another_file_takes_effect_and_a_broken_one_does_not(path: Path) -> None:
    ring = GossipKeys.load(write(path, b64(OLD)))
    assert not ring.refresh()
    write(path, b64(NEW, OLD))
    assert ring.refresh()
    assert ring.keys == (NEW, OLD)
    write(path, "[")
    with pytest.raises(ConfigError):
        ring.refresh()
    assert not ring.refresh()
    assert ring.keys == (NEW, OLD)


SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQ"
BAD_FILES = {
    "no list": ({"keys": [SECRET]}, "no JSON list"),
    "no JSON": (f"[{SECRET}", "no JSON list"),
    "nested without end": ("[" * 20_000 + SECRET, "no JSON list"),
    "empty": ([], "1 to 16 keys"),
    "no Base64": ([SECRET + "!"], "key 1 is not Base64"),
    "a number": ([*b64(OLD), 7], "key 2 is not Base64"),
    "a short key": (b64(b"x" * 20), "20 bytes"),
    "a key twice": (b64(OLD, OLD), "twice"),
    "too long": (b64(OLD) * 2000, "no JSON list"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_named_and_no_key_shown(path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        GossipKeys.load(write(path, content))
    assert str(path) in str(caught.value)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(SECRET in repr(error) for error in chain)
    assert caught.value.__cause__ is None


def test_a_file_that_others_can_read_or_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        GossipKeys.load(str(path))
    with pytest.raises(ConfigError, match="chmod"):
        GossipKeys.load(write(path, b64(OLD), mode=0o644))


def test_a_ring_shows_no_key() -> None:
    assert repr(GossipKeys([OLD, NEW], "/keys")) == "GossipKeys(2 keys, path='/keys')"


@given(st.lists(st.tuples(st.sampled_from("iur"), st.sampled_from([OLD, NEW, THIRD]))))
def test_a_ring_always_has_a_primary_key_and_each_key_once(steps: list[tuple[str, bytes]]) -> None:
    ring = GossipKeys([OLD])
    expected = [OLD]
    for step, key in steps:
        try:
            {"i": ring.install, "u": ring.use, "r": ring.remove}[step](key)
        except InvalidArgument:
            assert (step == "u" and key not in expected) or (step == "r" and key == expected[0])
            continue
        if step == "i" and key not in expected:
            expected.append(key)
        if step != "i" and key in expected:
            expected.remove(key)
        if step == "u":
            expected.insert(0, key)
    assert list(ring.keys) == expected
