"""Key files: what is taken, what is refused and how it is said, and how keys are added."""

import base64
import os
import stat
import tomllib
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quorumlog.errors import ConfigError
from quorumlog.log.key_ring import KEY_BYTES, KeyRing, write_new_key

FIRST, SECOND = bytes(range(32)), bytes(range(32, 64))
TODAY = date(2026, 11, 21)


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def key_file(directory: Path, text: str, mode: int = 0o600) -> str:
    path = directory / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


GOOD = f'active = "2026-11"\n[keys]\n2026-05 = "{encoded(FIRST)}"\n2026-11 = "{encoded(SECOND)}"\n'


def test_a_key_file_gives_every_key_and_the_active_one(tmp_path: Path) -> None:
    ring = KeyRing.load(key_file(tmp_path, GOOD))
    assert ring.active == "2026-11"
    assert ring.names == ("2026-05", "2026-11")
    assert ring.key("2026-05") == FIRST
    assert ring.key("2026-11") == SECOND
    assert ring.key("2026-12") is None


MISTAKES = [
    pytest.param("active = 1 2\n", "is not TOML (at line 1", id="broken toml"),
    pytest.param(f'[keys]\na = "{encoded(FIRST)}"', "active is missing", id="no active"),
    pytest.param('active = "a"', "[keys] is missing", id="no keys"),
    pytest.param('active = "a"\nkeys = 3', "[keys] is missing", id="keys that are no table"),
    pytest.param('active = "a"\n[keys]', "there are none", id="no key at all"),
    pytest.param(GOOD.replace("[keys]", "passphrase = 3\n[keys]"), "'passphrase'", id="unknown"),
    pytest.param(GOOD.replace('"2026-11"', '"2027"'), "2026-05, 2026-11", id="unknown active"),
    pytest.param(GOOD.replace("2026-05", "ä"), "is not TOML", id="name that is no bare key"),
    pytest.param(GOOD.replace("2026-05", '"a b"'), "'a b' cannot be", id="name with a space"),
    pytest.param(GOOD.replace("2026-05", "n" * 33), "33 characters", id="name too long"),
    pytest.param(GOOD.replace("2026-05", '""'), "'' cannot be", id="empty name"),
    pytest.param(GOOD.replace("2026-05", "a.b"), "'a' is not Base64", id="dotted name"),
    pytest.param(GOOD.replace(encoded(FIRST), "AAAA"), "'2026-05' has 3 bytes", id="short key"),
    pytest.param(GOOD.replace(encoded(FIRST), "not!"), "'2026-05' is not Base64", id="not base64"),
    pytest.param(
        GOOD.replace(encoded(FIRST), encoded(FIRST)[:-1]), "is not Base64", id="no padding"
    ),
    pytest.param(GOOD.replace(encoded(FIRST), encoded(SECOND)), "are the same", id="twice"),
    pytest.param(GOOD.replace("2026-05", "2026-11"), "is not TOML", id="name twice"),
    pytest.param(GOOD.replace(f'"{encoded(FIRST)}"', "7"), "is not Base64", id="a number"),
    pytest.param(GOOD.replace('"2026-11"', f'"{encoded(FIRST)}"'), "44 characters", id="key there"),
    pytest.param(f'"{encoded(FIRST)}" = 1\n{GOOD}', "44 characters", id="key as an entry"),
    pytest.param(GOOD + f"{encoded(FIRST)}\n", "is not TOML", id="key on a line of its own"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_file_and_without_a_key(
    tmp_path: Path, text: str, said: str
) -> None:
    path = key_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        KeyRing.load(path)
    assert said in str(caught.value)
    assert path in str(caught.value)
    for error in chain_of(caught.value):
        shown = f"{error!r} {error} {vars(error)}"
        assert encoded(FIRST)[:12] not in shown
        assert encoded(SECOND)[:12] not in shown
        assert repr(FIRST[:8])[2:-1] not in shown


def chain_of(error: BaseException | None) -> list[BaseException]:
    """``error`` and what is shown with it."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def test_a_file_that_is_not_there_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.toml")
    with pytest.raises(ConfigError, match=f"quorumlog log new-key {path}"):
        KeyRing.load(path)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        KeyRing.load(str(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        KeyRing.load(str(tmp_path / "pipe"))
    path = Path(key_file(tmp_path, ""))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        KeyRing.load(str(path))
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="over 1048576 bytes"):
        KeyRing.load(str(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_an_own_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, GOOD, mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}.*chmod 600"):
        KeyRing.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_may_be_open_to_a_group_and_no_further(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD)
    os.chown(path, 12345, 12345)
    os.chmod(path, 0o640)
    assert KeyRing.load(path).active == "2026-11"
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match="chmod 640"):
        KeyRing.load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD, 0o200)
    with pytest.raises(ConfigError, match="Permission denied"):
        KeyRing.load(path)


def test_a_ring_shows_no_key() -> None:
    ring = KeyRing("a", {"a": FIRST})
    assert repr(ring) == str(ring) == "KeyRing(active='a', names=('a',))"


def test_a_ring_does_not_change_with_what_it_was_made_from() -> None:
    keys = {"a": FIRST}
    ring = KeyRing("a", keys)
    keys["a"] = SECOND
    keys["b"] = SECOND
    assert ring.names == ("a",)
    assert ring.key("a") == FIRST


def test_the_given_randomness_makes_keys_and_stays_with_the_ring() -> None:
    source = Random(5)
    ring = KeyRing.generate("a", source.randbytes)
    assert (ring.active, ring.names, ring.key("a")) == ("a", ("a",), Random(5).randbytes(32))
    longer = ring.with_new_key("b")
    assert longer.active == "b"
    assert longer.key("a") == ring.key("a")
    expected = Random(5)
    expected.randbytes(64)
    assert longer.random_bytes(12) == expected.randbytes(12)
    assert KeyRing.generate("a").key("a") != KeyRing.generate("a").key("a")


def test_a_new_key_makes_a_file_for_its_owner_only(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.toml")
    mask = os.umask(0)
    try:
        assert write_new_key(path, None, TODAY) == "2026-11-21"
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    ring = KeyRing.load(path)
    assert (ring.active, ring.names) == ("2026-11-21", ("2026-11-21",))
    assert os.listdir(tmp_path) == ["keys.toml"]


def test_an_added_key_is_active_and_the_others_stay(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD)
    assert write_new_key(path, "next", TODAY) == "next"
    ring = KeyRing.load(path)
    assert ring.active == "next"
    assert ring.key("2026-05") == FIRST
    assert ring.key("2026-11") == SECOND
    assert ring.key("next") not in (None, FIRST, SECOND)


def test_keys_of_one_day_are_numbered(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.toml")
    names = [write_new_key(path, None, TODAY) for _ in range(3)]
    assert names == ["2026-11-21", "2026-11-21-2", "2026-11-21-3"]
    assert KeyRing.load(path).active == names[-1]


def test_a_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD, 0o400)
    (tmp_path / "link").symlink_to("keys.toml")
    write_new_key(str(tmp_path / "link"), "next", TODAY)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o400
    assert (tmp_path / "link").is_symlink()
    assert KeyRing.load(path).active == "next"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD)
    os.chown(path, 12345, 23456)
    write_new_key(path, "next", TODAY)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (12345, 23456)


@pytest.mark.parametrize("name", ["2026-11", "a b", "n" * 33, ""])
def test_a_name_that_cannot_be_changes_nothing(tmp_path: Path, name: str) -> None:
    path = key_file(tmp_path, GOOD)
    with pytest.raises(ConfigError):
        write_new_key(path, name, TODAY)
    assert Path(path).read_text() == GOOD
    assert os.listdir(tmp_path) == ["keys.toml"]


def test_a_file_with_a_mistake_is_not_written_over(tmp_path: Path) -> None:
    path = key_file(tmp_path, "precious")
    with pytest.raises(ConfigError, match="not TOML"):
        write_new_key(path, "next", TODAY)
    assert Path(path).read_text() == "precious"


def test_no_key_is_added_while_another_is(tmp_path: Path) -> None:
    path = key_file(tmp_path, GOOD)
    (tmp_path / "keys.toml.new").touch()
    with pytest.raises(ConfigError, match=r"keys\.toml\.new exists.*remove that file"):
        write_new_key(path, "next", TODAY)
    assert Path(path).read_text() == GOOD


def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_new_key(str(tmp_path / "none" / "keys.toml"), "next", TODAY)


def test_a_disk_error_while_writing_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key_file(tmp_path, GOOD)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="cannot be written: Input/output error"):
        write_new_key(path, "next", TODAY)
    assert Path(path).read_text() == GOOD
    assert os.listdir(tmp_path) == ["keys.toml"]


def test_the_written_file_is_plain_toml(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.toml")
    write_new_key(path, "a", TODAY)
    key = KeyRing.load(path).key("a")
    assert key is not None
    assert len(key) == KEY_BYTES
    assert tomllib.loads(Path(path).read_text()) == {"active": "a", "keys": {"a": encoded(key)}}


def test_a_file_may_have_no_active_key_and_a_new_one_becomes_active(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    write_new_key(str(path), "old", TODAY)
    path.write_text(path.read_text().replace('active = "old"', 'active = ""'))
    ring = KeyRing.load(str(path))
    assert (ring.active, ring.names) == ("", ("old",))
    write_new_key(str(path), "new", TODAY)
    assert KeyRing.load(str(path)).active == "new"


@pytest.mark.parametrize(
    ("active", "keys"),
    [
        ("a", {"a": "x" * 32}),
        ("a", {"a": bytearray(32)}),
        ("a", {"a": None}),
        (5, {5: bytes(32)}),
        (None, {"a": bytes(32)}),
    ],
)
def test_a_ring_of_wrong_types_is_refused(active: Any, keys: Any) -> None:
    with pytest.raises(ConfigError):
        KeyRing(active, keys)


def test_a_new_key_is_there_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it takes its name, and the name when the call returns."""
    calls: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(file: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)

    def renamed(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write_new_key(str(tmp_path / "keys.toml"), "new", TODAY)
    assert calls == ["file", "rename", "directory"]
