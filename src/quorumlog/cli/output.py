"""What commands print: tables for people, JSON for programs, one line for an error."""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def print_json(value: object) -> None:
    """One JSON document on stdout, in one line."""
    print(json.dumps(value, ensure_ascii=False))


def print_error(message: str, reason: str, details: Mapping[str, Any], as_json: bool) -> None:
    """One line on stderr, whatever ``message`` contains."""
    line = " ".join(message.split())
    if as_json:
        line = json.dumps({"error": reason, "message": line, "details": details})
    else:
        line = f"quorumlog: {line}"
    print(line, file=sys.stderr)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """With lines and colours on a terminal, in plain columns otherwise."""
    cells = [["-" if cell is None else _printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers)
        for row in cells:
            # Names are whatever somebody called a thing: no markup.
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in [list(headers), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _printable(text: str) -> str:
    """With escapes for what would act on a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def text_or_base64(name: str, data: bytes | None) -> dict[str, str | None]:
    """``data`` as a JSON member: text where it is UTF-8, else ``NAME_base64``."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def local_time(time_ms: int) -> str:
    """``time_ms`` since 1970 where this machine is, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone().isoformat(" ", "seconds")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
