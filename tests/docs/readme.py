"""The README's fenced blocks."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A command of a console block, and what the block shows as its output."""

    command: str
    output: str


def blocks(language: str) -> list[str]:
    return [body for found, body in _FENCE.findall(README.read_text("utf-8")) if found == language]


def steps(console_block: str) -> list[Step]:
    """``$ command`` lines, each with the lines up to the next one."""
    parts = re.split(r"^\$ ", console_block, flags=re.MULTILINE)[1:]
    return [Step(*part.partition("\n")[::2]) for part in parts]
