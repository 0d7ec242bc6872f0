"""The keys that gossip is encrypted with, and how they change while everything runs.

A key is 16, 24 or 32 bytes, for AES-128, -192 or -256. What is sent is encrypted with the
*primary* key; what comes may be encrypted with any key of the ring. So a key is exchanged in three
steps, each done on every node before the next: install the new one, use it, remove the old one.

The file is Serf's: a JSON list of keys in Base64, the primary one first. It is read and replaced
with the operating system's own calls, for the disk port knows no owners and permissions. No error,
text or representation made here shows a key.
"""

import base64
import binascii
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from quorumlog.errors import ConfigError, InvalidArgument
from quorumlog.log.key_ring import check_trust

KEY_SIZES: Final = (16, 24, 32)
MAX_KEYS: Final = 16
"""Most keys in a ring: each of them may be tried on every packet."""

MAX_FILE_BYTES: Final = 64 * 1024
_NEW_SUFFIX: Final = ".new"
_Stamp = tuple[int, int, int]
_MAKE_ONE: Final = "`head -c 32 /dev/urandom | base64` or `serf keygen` makes a key"


class GossipKeys:
    """The ring. Changes are safe from any thread; what was read before stays as it was.

    ``path`` is the file that changes are written to, before they take effect; empty: none.
    Raises ``ConfigError`` for keys that cannot be a ring.
    """

    def __init__(self, keys: Sequence[bytes], path: str = "") -> None:
        self._keys = _checked(keys)
        self._path = os.path.realpath(path) if path else ""
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None

    def __repr__(self) -> str:
        return f"GossipKeys({len(self._keys)} keys, path={self._path!r})"

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The primary key, then the others."""
        return self._keys

    @property
    def path(self) -> str:
        return self._path

    def install(self, key: bytes) -> None:
        """Decrypt with ``key`` too. One that is here already changes nothing.

        Raises ``InvalidArgument`` for a key of the wrong size or a full ring, and ``ConfigError``
        when the file cannot be written; the ring is then as it was. So do the other two.
        """
        with self._lock:
            if key not in self._keys:
                self._change((*self._keys, key))

    def use(self, key: bytes) -> None:
        """Encrypt with ``key`` from now on; it has to be in the ring."""
        with self._lock:
            if key not in self._keys:
                raise InvalidArgument("this key is not in the ring: install it first")
            self._change((key, *(other for other in self._keys if other != key)))

    def remove(self, key: bytes) -> None:
        """Forget ``key``, which must not be the primary one. An unknown one changes nothing."""
        with self._lock:
            if key == self._keys[0]:
                raise InvalidArgument("this is the primary key: use another one first")
            self._change(tuple(other for other in self._keys if other != key))

    def refresh(self) -> bool:
        """Take the keys of the file if it was changed; whether they are others than before.

        Raises ``ConfigError`` as ``load`` does, once for each change; the ring stays as it was.
        """
        with self._lock:
            stamp = _stamp_of(self._path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            before = self._keys
            self._keys = _read(self._path)
            return self._keys != before

    @staticmethod
    def load(path: str) -> "GossipKeys":
        """The ring in the file at ``path``.

        Raises ``ConfigError``: no such file, one that others can read, or a mistake in it.
        """
        # Before it is read: a change in between is found later, not missed.
        stamp = _stamp_of(path)
        ring = GossipKeys(_read(path), path)
        ring._stamp = stamp
        return ring

    def _change(self, keys: tuple[bytes, ...]) -> None:
        if keys == self._keys:
            return
        try:
            _checked(keys)
        except ConfigError as error:
            raise InvalidArgument(str(error)) from None
        if self._path:
            _write(self._path, keys)
        self._keys = keys


def _stamp_of(path: str) -> _Stamp | None:
    """Another one when the file was written or replaced; None while it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _checked(keys: Sequence[bytes]) -> tuple[bytes, ...]:
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ConfigError(f"a gossip key ring has 1 to {MAX_KEYS} keys, not {len(keys)}")
    for key in keys:
        if len(key) not in KEY_SIZES:
            raise ConfigError(f"a gossip key has {len(key)} bytes, not 16, 24 or 32: {_MAKE_ONE}")
    if len(set(keys)) != len(keys):
        raise ConfigError("a gossip key ring has one of its keys twice")
    return tuple(keys)


def _read(path: str) -> tuple[bytes, ...]:
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as stream:
            check_trust(path, os.fstat(file))
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"gossip key file {path} cannot be read: {error.strerror}; "
            f'it is a list like ["BASE64 OF A KEY"], and {_MAKE_ONE}'
        ) from error
    try:
        return _checked(_decoded(raw))
    except ConfigError as error:
        raise ConfigError(f"gossip key file {path}: {error}") from None


def _decoded(raw: bytes) -> list[bytes]:
    """Raises errors without a cause: a decoder's error holds the text, and so the keys."""
    listed: object = None
    with suppress(ValueError, RecursionError):
        listed = json.loads(raw)
    if len(raw) > MAX_FILE_BYTES or not isinstance(listed, list):
        raise ConfigError('it is no JSON list of keys in Base64: write ["KEY", …], primary first')
    keys: list[bytes] = []
    for number, text in enumerate(listed, 1):
        key = None
        if isinstance(text, str):
            with suppress(binascii.Error, ValueError):
                key = base64.b64decode(text, validate=True)
        if key is None:
            raise ConfigError(f"key {number} is not Base64 text")
        keys.append(key)
    return keys


def _write(path: str, keys: Sequence[bytes]) -> None:
    """Replace the file as a whole; on stable storage when this returns."""
    text = json.dumps([base64.b64encode(key).decode() for key in keys], indent=2) + "\n"
    new_path = path + _NEW_SUFFIX
    try:
        with suppress(FileNotFoundError):
            # Left behind by a process that died while it wrote; nobody else writes here.
            os.remove(new_path)
        file = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(file)
        os.rename(new_path, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"gossip key file {path} cannot be written: {error.strerror}") from error
