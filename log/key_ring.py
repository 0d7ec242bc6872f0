"""The keys of encryption at rest, from a file.

The file is TOML: the name of the key that new segments take, and every key by its name, 32 random
bytes in Base64::

    active = "2026-11"

    [keys]
    2026-05 = "…"
    2026-11 = "…"

With ``active = ""`` nothing more is encrypted, and what is can still be read.

It is configuration: read once, at start, with the operating system's own calls, for the disk port
knows no owners and permissions. No error, text or representation made here shows a key.
"""

import base64
import binascii
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from types import MappingProxyType
from typing import Final

from quorumlog.errors import ConfigError
from quorumlog.log.segment_header import MAX_KEY_ID_BYTES

KEY_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1024 * 1024

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_ID_BYTES}}}")
_NAME_RULE = f"1 to {MAX_KEY_ID_BYTES} letters, digits, - and _"
_PLACE = re.compile(r"\(at [^()]*\)$")
_NEW_SUFFIX = ".new"
_FILE_COMMENT = (
    "# Keys of quorumlog's encryption at rest. Data is readable only while its key stands here:\n"
    "# keep a copy in another place. Written by `quorumlog log new-key`.\n"
)


class KeyRing:
    """Keys by name, one of them active, and where salts and nonces come from. Never changed."""

    __slots__ = ("_active", "_keys", "_random_bytes")

    def __init__(
        self,
        active: str,
        keys: Mapping[str, bytes],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """
        Args:
            active: name of the key that new segments are encrypted with; empty: they are not
                encrypted, and the keys are there to read what is.
            keys: by name; ``KEY_BYTES`` bytes each, no two the same.
            random_bytes: gives so many bytes that nobody can foretell, from any thread.

        Raises:
            ConfigError: a name or key of the wrong form, a key twice, an active key that is none.
        """
        names: dict[bytes, str] = {}
        for name, key in keys.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigError(f"the key name {_shown(str(name))} cannot be: use {_NAME_RULE}")
            if not isinstance(key, bytes):
                raise ConfigError(f"key {name!r} is bytes, not {type(key).__name__}")
            if len(key) != KEY_BYTES:
                raise ConfigError(
                    f"key {name!r} has {len(key)} bytes and AES-256 needs {KEY_BYTES}: "
                    "make keys with `quorumlog log new-key`"
                )
            if key in names:
                raise ConfigError(
                    f"keys {names[key]!r} and {name!r} are the same: make a new one with "
                    "`quorumlog log new-key`"
                )
            names[key] = name
        if not isinstance(active, str) or (active and active not in keys):
            raise ConfigError(
                f"the active key {_shown(str(active))} is not among the keys: set active to one of "
                f"{_listed(keys) or 'them, there are none'}; or to nothing, to encrypt no more"
            )
        self._active = active
        self._keys = MappingProxyType(dict(keys))
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"KeyRing(active={self._active!r}, names={self.names!r})"

    @property
    def active(self) -> str:
        """The name of the key that new segments are encrypted with; empty: they are not."""
        return self._active

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._keys))

    def key(self, name: str) -> bytes | None:
        """The key of that name: secret, for deriving others from it; None if it is not here."""
        return self._keys.get(name)

    def random_bytes(self, size_bytes: int) -> bytes:
        """For salts and nonces."""
        return self._random_bytes(size_bytes)

    def with_new_key(self, name: str) -> "KeyRing":
        """These keys and a new one, which is the active one.

        Raises:
            ConfigError: there is a key of that name, or the name is of the wrong form.
        """
        if name in self._keys:
            raise ConfigError(f"there is a key {name!r} already: take another name")
        keys = {**self._keys, name: self._random_bytes(KEY_BYTES)}
        return KeyRing(name, keys, self._random_bytes)

    @staticmethod
    def generate(name: str, random_bytes: Callable[[int], bytes] = os.urandom) -> "KeyRing":
        """A ring of one new key."""
        return KeyRing(name, {name: random_bytes(KEY_BYTES)}, random_bytes)

    @staticmethod
    def load(path: str) -> "KeyRing":
        """The ring in the file at ``path``.

        A file of this user that others can read or write is refused, as ssh refuses a private key:
        a warning would be read after the key is known. The owner can mend that, so the rule is
        milder for a file of somebody else: a group may have access to it, which is how Kubernetes
        hands a secret to a process that is not root.

        Raises:
            ConfigError: no such file, or not one to be trusted, or a mistake in it. Names the way
                out, never a key.
        """
        text = _read(path)
        failed_at = None
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            # A TOMLDecodeError, or of what is nested or long without an end.
            found = _PLACE.search(str(error))
            failed_at = found.group() if found else ""
        if failed_at is not None:
            # Raised out here, for the decoder's error holds the text, and so the keys.
            raise ConfigError(f"key file {path} is not TOML {failed_at}".rstrip())
        try:
            return _ring_of(document)
        except ConfigError as error:
            raise ConfigError(f"key file {path}: {error}") from None


def write_new_key(path: str, name: str | None, today: date) -> str:
    """Add a new key to the file at ``path`` and make it the active one; returns its name.

    A file that is not there is made, for its owner only; one that is there keeps its owner and
    permissions, and loses comments. It is replaced as a whole, and on stable storage when this
    returns: no segment can depend on a key that a power cut takes away.

    Args:
        path: of the key file; a link is followed.
        name: None: the day, with a number behind it where that is taken.
        today: the day that a key without a name is named after.

    Raises:
        ConfigError: what is there is no key file, has the name already, or cannot be written;
            or another process is writing it. Nothing was changed.
    """
    path = os.path.realpath(path)
    new_path = path + _NEW_SUFFIX
    try:
        # This file is the lock too: of two that add a key at once, neither may lose its key.
        file = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{new_path} exists: another process is adding a key, or died while it did; "
            "if none is running, remove that file and try again"
        ) from None
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be written: {error.strerror}") from error
    try:
        ring, name = _extended(path, name, today)
        _fill(file, path, _text_of(ring))
        os.rename(new_path, path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.remove(new_path)
        if isinstance(error, OSError):
            raise ConfigError(f"key file {path} cannot be written: {error.strerror}") from error
        raise
    finally:
        os.close(file)
    _sync_directory(os.path.dirname(path))
    return name


def _read(path: str) -> str:
    """The text of the file at ``path``, if it is one to be trusted."""
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no key file {path}: make one with `quorumlog log new-key {path}`"
        ) from None
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be read: {error.strerror}") from error
    try:
        check_trust(path, os.fstat(file))
        with os.fdopen(file, "rb", closefd=False) as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"key file {path} is over {MAX_FILE_BYTES} bytes: that is no key file")
    text = raw.decode(errors="replace")
    if "\ufffd" in text:
        raise ConfigError(f"key file {path} is not text in UTF-8")
    return text


def check_trust(path: str, status: os.stat_result) -> None:
    """Refuse a key file that is no regular file, or open to others; see :meth:`KeyRing.load`.

    Raises:
        ConfigError: names the file and the way out.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"key file {path} is not a regular file")
    is_own = status.st_uid == os.geteuid()
    if status.st_mode & (0o077 if is_own else 0o007):
        raise ConfigError(
            f"key file {path} has the permissions {stat.S_IMODE(status.st_mode):04o}, so others "
            f"may know its keys: run `chmod {'600' if is_own else '640'} {path}`, and think of "
            "new keys"
        )


def _ring_of(document: Mapping[str, object]) -> KeyRing:
    for entry in document:
        if entry not in ("active", "keys"):
            raise ConfigError(f"unknown entry {_shown(entry)}: there are active and [keys]")
    active, table = document.get("active"), document.get("keys")
    if not isinstance(active, str):
        raise ConfigError('active is missing or no text: write active = "NAME OF A KEY"')
    if not isinstance(table, dict):
        raise ConfigError("[keys] is missing or no table: make one with `quorumlog log new-key`")
    return KeyRing(active, {name: _decoded(name, text) for name, text in table.items()})


def _decoded(name: str, text: object) -> bytes:
    if isinstance(text, str):
        with suppress(binascii.Error, ValueError):
            return base64.b64decode(text, validate=True)
    raise ConfigError(f'key {_shown(name)} is not Base64 text: write NAME = "BASE64 OF 32 BYTES"')


def _extended(path: str, name: str | None, today: date) -> tuple[KeyRing, str]:
    """The ring in the file at ``path``, if there is one, with a new key, and that key's name."""
    ring = KeyRing.load(path) if os.path.lexists(path) else None
    if name is None:
        name = day = today.isoformat()
        number = 1
        while ring is not None and ring.key(name) is not None:
            number += 1
            name = f"{day}-{number}"
    if ring is None:
        return KeyRing.generate(name), name
    return ring.with_new_key(name), name


def _text_of(ring: KeyRing) -> bytes:
    lines = [f'{_FILE_COMMENT}active = "{ring.active}"\n\n[keys]\n']
    for name in ring.names:
        lines.append(f'{name} = "{base64.b64encode(ring.key(name) or b"").decode()}"\n')
    return "".join(lines).encode()


def _fill(file: int, path: str, text: bytes) -> None:
    """Write and sync the file that takes the place of the one at ``path``."""
    if os.path.exists(path):
        status = os.stat(path)
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file, status.st_uid, status.st_gid)
        os.fchmod(file, stat.S_IMODE(status.st_mode))
    while text:
        text = text[os.write(file, text) :]
    os.fsync(file)


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _shown(name: str) -> str:
    """``name`` for an error; not where it may be a key that was written in the wrong place."""
    if len(name) <= MAX_KEY_ID_BYTES:
        return repr(name)
    return f"of {len(name)} characters"


def _listed(names: Mapping[str, bytes]) -> str:
    return ", ".join(sorted(names))
