"""The keys of a follower: its writer adds one, and goes on with it, while the follower runs."""

from collections.abc import Callable

from quorumlog.log.key_ring import KeyRing


class GrowingKeyRing(KeyRing):
    """A ring that is loaded again when a key is asked for that it has not.

    A key is in its file before anything is encrypted with it, so who meets a name finds it there.
    Any number of threads.
    """

    __slots__ = ("_load",)

    def __init__(self, load: Callable[[], KeyRing]) -> None:
        """``load`` gives the ring as it is now; what it raises is raised here, and by ``key``."""
        self._load = load
        self._take(load())

    def key(self, name: str) -> bytes | None:
        """The key of that name, looked for once more where it is not known.

        Raises:
            ConfigError: it is not known, and the ring cannot be loaded.
        """
        key = super().key(name)
        if key is None:
            self._take(self._load())
            key = super().key(name)
        return key

    def _take(self, ring: KeyRing) -> None:
        self._active, self._keys, self._random_bytes = ring._active, ring._keys, ring._random_bytes
