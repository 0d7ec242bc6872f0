"""The figures, their statistics and where they are written."""

from pathlib import Path

import pytest

from bench.figures import QUICK, Figure, Scale, latency_percentiles, percentile
from bench.report import BEGIN, END, publish, render


@pytest.mark.parametrize(
    ("percent", "expected"), [(0.1, 1), (50, 50), (90, 90), (99, 99), (99.9, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_percentiles_are_in_milliseconds() -> None:
    assert latency_percentiles([0.001] * 99 + [0.5]) == (
        "p50 1.00, p90 1.00, p99 1.00, p99.9 500.00 ms"
    )


def test_a_scaled_count_is_never_zero_and_stays_a_multiple() -> None:
    scale = Scale(repeats=1, factor=0.001)
    assert scale.count(100) == 1
    assert scale.count(100, multiple_of=64) == 64
    assert QUICK.count(1000) == 100


def test_the_table_replaces_the_one_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    table = render([Figure("what", "how", "much", "of that")], QUICK)
    publish(table, results, readme)
    assert readme.read_text() == f"before\n{BEGIN}{table}{END}\nafter\n"
    assert results.read_text() == table
    assert "| what | how | much | of that |" in table


def test_without_markers_nothing_is_written(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text("no markers\n")
    with pytest.raises(ValueError, match="markers"):
        publish("table\n", results, readme)
    assert readme.read_text() == "no markers\n"
    assert not results.exists()
