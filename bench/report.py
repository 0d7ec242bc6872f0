"""The tables: on the terminal, in bench/results.md and in the README."""

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
    """The figures as Markdown, with their goals where there are any."""
    columns = ["what", "configured", "measured", "compared"]
    if any(figure.goal for figure in figures):
        columns.append("goal")
    rows = [[getattr(figure, column) for column in columns] for figure in figures]
    lines = [
        f"quorumlog {__version__}, Python {platform.python_version()}, grpcio {grpc.__version__}, "
        f"uvloop, {os.cpu_count()} CPUs shared by all processes; "
        f"medians of {scale.repeats} runs in turns.",
        "",
        _row(columns),
        "|" + "---|" * len(columns),
        *map(_row, rows),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def publish(part: str, table: str, results: Path = RESULTS, readme: Path = README) -> None:
    """Put ``table`` in the place of the one of ``part`` in ``results``, and all in ``readme``.

    Raises:
        ValueError: the markers of the place are missing. Nothing was written.
    """
    tables = _replaced(results, f"<!-- {part} -->\n", f"<!-- end of {part} -->", table)
    text = _replaced(readme, BEGIN, END, tables)
    results.write_text(tables, encoding="utf-8")
    readme.write_text(text, encoding="utf-8")


def _replaced(path: Path, begin: str, end: str, content: str) -> str:
    """What is in ``path``, with ``content`` between ``begin`` and ``end``."""
    before, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{path} lacks the markers {begin.strip()} and {end}")
    return f"{before}{begin}{content}{end}{after}"
