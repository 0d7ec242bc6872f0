"""What callers hand in, checked before anything depends on it."""

import os
from operator import index
from typing import TYPE_CHECKING

from quorumlog.errors import ConfigError, InvalidArgument

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

Path = str | os.PathLike[str]


def whole(name: str, number: object) -> int:
    """``number`` as an int (of numpy, too); raises InvalidArgument where it is no whole number.

    A fraction would be compared without complaint, and get as far as the file.
    """
    try:
        # Whatever it is: that is what is asked here.
        return index(number)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(f"{name} is a whole number, not {number!r}") from None


def directory_of(path: Path) -> str:
    """The name of the directory ``path``; raises ConfigError where it cannot be one."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise ConfigError(f"path is a str or a pathlib.Path, not {path!r}") from None
    if not name or "\0" in name:
        raise ConfigError(f"path is the name of a directory, not {name!r}")
    return name


def key_ring(keys: "KeyRing | Path | None") -> "KeyRing | None":
    """The ring, loaded where a file is named; raises ConfigError."""
    if keys is None:
        return None
    from quorumlog.log.key_ring import KeyRing

    if isinstance(keys, str | os.PathLike):
        return KeyRing.load(os.fspath(keys))
    if not isinstance(keys, KeyRing):
        raise ConfigError(f"keys is a KeyRing or the name of its file, not {type(keys).__name__}")
    return keys
