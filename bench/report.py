"""The table: on the terminal, in bench/results.md and in the README."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc

from bench.figures import Figure, Scale
from quorumlog import __version__

RESULTS: Final = Path("bench/results.md")
README: Final = Path("README.md")
BEGIN: Final = "<!-- bench/results.md -->\n"
END: Final = "<!-- end -->"


def render(figures: Sequence[Figure], scale: Scale) -> str:
    """The figures as Markdown."""
    lines = [
        f"quorumlog {__version__}, Python {platform.python_version()}, grpcio {grpc.__version__}, "
        f"uvloop, {os.cpu_count()} CPUs shared by all processes; "
        f"medians of {scale.repeats} runs.",
        "",
        "| what | configured | measured | compared |",
        "|---|---|---|---|",
        *(f"| {f.what} | {f.configured} | {f.measured} | {f.compared} |" for f in figures),
    ]
    return "\n".join(lines) + "\n"


def publish(table: str, results: Path = RESULTS, readme: Path = README) -> None:
    """Write ``table`` to ``results`` and between the two markers of ``readme``."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} lacks the markers {BEGIN.strip()} and {END}")
    results.write_text(table, encoding="utf-8")
    readme.write_text(f"{before}{begin}{table}{end}{after}", encoding="utf-8")
