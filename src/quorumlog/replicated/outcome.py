"""What became of a command, as every replica computes it and as it travels between nodes.

One byte of :class:`Verdict`, eight for the index at which it was decided (little-endian), then the
result, or the reason of a refusal in UTF-8.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from quorumlog.errors import ProtocolError, Refused
from quorumlog.types import Index

_HEAD = struct.Struct("<BQ")


class Verdict(IntEnum):
    DONE = 1
    REFUSED = 2
    """By the user's machine."""
    FORGOTTEN = 3
    """Not done now; whether it was done before is not known any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    index: Index
    payload: bytes

    def result(self) -> bytes:
        """Raises Refused."""
        if self.verdict is Verdict.REFUSED:
            raise Refused(self.payload.decode(errors="replace"))
        return self.payload

    def encode(self) -> bytes:
        return _HEAD.pack(self.verdict, self.index) + self.payload

    @staticmethod
    def decode(raw: bytes) -> "Outcome":
        """Raises ProtocolError."""
        try:
            verdict, index = _HEAD.unpack_from(raw)
            return Outcome(Verdict(verdict), Index(index), raw[_HEAD.size :])
        except (struct.error, ValueError) as error:
            raise ProtocolError(f"not an outcome: {error}") from error
