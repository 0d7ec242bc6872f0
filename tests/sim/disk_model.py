"""What a power cut leaves of a file and of a directory."""

from dataclasses import dataclass, field
from random import Random

from quorumlog.types import Buffer

SECTOR_BYTES = 512


@dataclass(slots=True)
class Overwrite:
    """What stood at ``position`` before a change that is not synced, and the length before."""

    position: int
    old: bytes
    size_before: int
    end: int
    is_write: bool = True
    """False where only the length changed: such sectors read as before or as zeros, not torn."""


class Inode:
    """The bytes of a file as they read now, and how to get back to what is durable."""

    __slots__ = ("data", "durable_size", "lost", "overwrites")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable_size = 0
        self.overwrites: list[Overwrite] = []
        self.lost: dict[int, bytes] = {}
        """Durable content of sectors whose newer content a failed sync dropped."""

    def write(self, position: int, buffer: Buffer) -> None:
        data = self.data
        end = position + len(buffer)
        self.overwrites.append(Overwrite(position, bytes(data[position:end]), len(data), end))
        if position > len(data):
            data.extend(bytes(position - len(data)))
        data[position:end] = buffer

    def resize(self, size_bytes: int) -> None:
        data = self.data
        if size_bytes < len(data):
            old = bytes(data[size_bytes:])
            self.overwrites.append(Overwrite(size_bytes, old, len(data), len(data), False))
            del data[size_bytes:]
        elif size_bytes > len(data):
            self.overwrites.append(Overwrite(len(data), b"", len(data), len(data), False))
            data.extend(bytes(size_bytes - len(data)))

    def sync(self) -> None:
        if self.lost:
            for sector in self._dirty_sectors():
                self.lost.pop(sector, None)
        self.overwrites.clear()
        self.durable_size = len(self.data)

    def copy(self) -> "Inode":
        twin = Inode()
        twin.data = bytearray(self.data)
        twin.durable_size = len(twin.data)
        return twin

    def drop_sync(self) -> None:
        """A sync that failed: what was dirty looks clean and is not on the disk."""
        durable = self._durable_image()
        for sector in self._dirty_sectors():
            begin = sector * SECTOR_BYTES
            content = durable[begin : begin + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
            self.lost.setdefault(sector, bytes(content))
        self.overwrites.clear()
        self.durable_size = len(self.data)

    def crash(self, rng: Random) -> None:
        """Become one of the states a power cut may leave."""
        if not self.overwrites and not self.lost:
            return
        durable = self._durable_image()
        dirty = self._dirty_sectors()
        written = set(self._dirty_sectors(writes_only=True))
        size_bytes = rng.choice((self.durable_size, len(self.data)))
        length = max(len(durable), len(self.data))
        durable.extend(bytes(length - len(durable)))
        current = self.data
        current.extend(bytes(length - len(current)))
        weights = rng.choice(((1, 0, 0), (0, 1, 0), (1, 1, 0), (2, 2, 1), (8, 1, 1), (1, 8, 1)))
        for sector in dirty:
            begin = sector * SECTOR_BYTES
            end = min(begin + SECTOR_BYTES, length)
            fate = rng.choices(("kept", "lost", "garbled"), weights)[0]
            if fate == "kept":
                durable[begin:end] = current[begin:end]
                self.lost.pop(sector, None)
            elif fate == "garbled" and sector in written:
                durable[begin:end] = _garble(durable[begin:end], current[begin:end], rng)
        for sector in sorted(self.lost):
            begin = sector * SECTOR_BYTES
            end = min(begin + SECTOR_BYTES, length)
            durable[begin:end] = self.lost[sector][: end - begin]
        del durable[size_bytes:]
        self.data = durable
        self.durable_size = len(durable)
        self.overwrites.clear()
        self.lost.clear()

    def _durable_image(self) -> bytearray:
        image = bytearray(self.data)
        for change in reversed(self.overwrites):
            if len(image) < change.size_before:
                image.extend(bytes(change.size_before - len(image)))
            image[change.position : change.position + len(change.old)] = change.old
            del image[change.size_before :]
        return image

    def _dirty_sectors(self, *, writes_only: bool = False) -> list[int]:
        sectors: set[int] = set()
        for change in self.overwrites:
            if change.is_write or not writes_only:
                begin = change.position // SECTOR_BYTES
                sectors.update(range(begin, -(-change.end // SECTOR_BYTES)))
        return sorted(sectors)


def _garble(old: bytearray, new: bytearray, rng: Random) -> bytearray:
    """A sector torn between two contents, or with noise where they differ.

    Bytes that the write does not change are never harmed: disks keep that promise for a sector
    (SQLite calls it powersafe overwrite), and no log could append without it.
    """
    differing = [at for at, (one, other) in enumerate(zip(old, new, strict=True)) if one != other]
    if not differing:
        return new
    cut = rng.randrange(differing[0], differing[-1] + 2)
    if rng.random() < 0.5:
        return new[:cut] + old[cut:]
    noise = rng.randbytes(min(32, differing[-1] + 1 - cut))
    return new[:cut] + noise + old[cut + len(noise) :]


@dataclass(slots=True)
class Directory:
    """Names as they are now, names that are durable, and what lies between, in order."""

    names: dict[str, "Inode | Directory"] = field(default_factory=dict)
    durable: dict[str, "Inode | Directory"] = field(default_factory=dict)
    changes: list[dict[str, "Inode | Directory | None"]] = field(default_factory=list)
    version: int = 0
    """Counts the changes of ``names``."""

    def change(self, change: dict[str, "Inode | Directory | None"]) -> None:
        _apply(self.names, change)
        self.changes.append(change)
        self.version += 1

    def copy(self) -> "Directory":
        names = {name: entry.copy() for name, entry in self.names.items()}
        return Directory(names, dict(names))

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.changes.clear()

    def crash(self, rng: Random) -> None:
        survivors = rng.randrange(len(self.changes) + 1)
        for change in self.changes[:survivors]:
            _apply(self.durable, change)
        self.names = dict(self.durable)
        self.version += 1
        self.changes.clear()
        for _, entry in sorted(self.names.items()):
            entry.crash(rng)


def _apply(
    names: dict[str, Inode | Directory], change: dict[str, Inode | Directory | None]
) -> None:
    for name, entry in change.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry
