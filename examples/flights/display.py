"""What the demo shows: a progress bar on a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_LABEL_WIDTH: Final = 9
_PLAIN_STEPS: Final = 10


def say(console: Console, label: str, text: str) -> None:
    """One line of the story."""
    console.print(f"{label:<{_LABEL_WIDTH}} {text}", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """The block calls what it is given with how many of ``total`` are done."""
    if not console.is_terminal:
        yield _plain_progress(console, label, total)
        return
    columns = (
        TextColumn(f"{label:<{_LABEL_WIDTH}}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, expand=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)


def _plain_progress(console: Console, label: str, total: int) -> Callable[[int], None]:
    shown = 0

    def show(done: int) -> None:
        nonlocal shown
        step = done * _PLAIN_STEPS // total
        if step > shown:
            shown = step
            say(console, label, f"{done:,} of {total:,}")

    return show


def summary(console: Console, figures: Mapping[str, str], passed: bool) -> None:
    """The table at the end."""
    table = Table(title="PASSED" if passed else "FAILED", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, figure in figures.items():
        table.add_row(name, figure)
    console.print()
    console.print(table)
