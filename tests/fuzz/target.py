"""What a fuzz target is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quorumlog.errors import QuorumlogError


class WrongResult(Exception):
    """A decoder returned something that it must not make of these bytes."""


def unchanged(data: bytes) -> bytes:
    """The repair of a format without checksums."""
    return data


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, and what has to hold of it for all bytes there are.

    Attributes:
        name: stable: of the corpus directory too.
        check: decodes; raises one of ``errors``, or WrongResult where a result is not right. Any
            other exception is a bug of the decoder.
        errors: what the decoder documents.
        seeds: well-formed inputs, made by the real encoders.
        repair: makes the checksums right, for mutations to reach what is behind them.
    """

    name: str
    check: Callable[[bytes], None]
    errors: tuple[type[QuorumlogError], ...]
    seeds: Callable[[], Sequence[bytes]]
    repair: Callable[[bytes], bytes] = unchanged

    def run(self, data: bytes) -> int:
        """Check ``data`` as it is and repaired; returns how many of the two were decoded."""
        decoded = 0
        variants = [data]
        repaired = self.repair(data)
        if repaired != data:
            variants.append(repaired)
        for variant in variants:
            try:
                self.check(variant)
                decoded += 1
            except self.errors:
                continue
        return decoded


def expect(condition: bool, what: str) -> None:
    """Raise WrongResult unless ``condition``; ``what`` says what should hold."""
    if not condition:
        raise WrongResult(what)
