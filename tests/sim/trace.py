"""What happened in a run, in order: a digest of all of it and the last lines in full."""

import hashlib
from collections import deque
from collections.abc import Callable

KEPT_LINES = 400


class Trace:
    def __init__(
        self, now_s: Callable[[], float], echo: Callable[[str], None] | None = None
    ) -> None:
        """``echo`` gets every line as it is written."""
        self._now_s = now_s
        self._echo = echo
        self._hash = hashlib.blake2b(digest_size=16)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.count = 0

    def add(self, event: str) -> None:
        line = f"{self._now_s():12.6f} {event}"
        self.count += 1
        self._hash.update(line.encode())
        self._lines.append(line)
        if self._echo is not None:
            self._echo(line)

    @property
    def digest(self) -> str:
        """Equal for two runs that did the same at the same times."""
        return self._hash.hexdigest()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(list(self._lines)[-lines:])
