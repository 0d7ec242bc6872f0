"""The figures, their statistics and where they are written."""

from pathlib import Path

import pytest

from bench.figures import (
    QUICK,
    Figure,
    Scale,
    in_turns,
    latency_percentiles,
    median_ratio,
    percentile,
)
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


def test_rounds_run_in_turns_forwards_and_backwards() -> None:
    order: list[str] = []

    def measure(name: str, value: float) -> float:
        order.append(name)
        return value

    results = in_turns(3, lambda: measure("a", 1.0), lambda: measure("b", 2.0))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results == [[1.0] * 3, [2.0] * 3]


def test_the_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    assert median_ratio([1, 10, 6], [2, 10, 2]) == 1


def test_the_table_of_a_part_replaces_only_its_own(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.md"
    other = "<!-- other -->\nkept\n<!-- end of other -->\n"
    results.write_text(f"{other}<!-- part -->\nold\n<!-- end of part -->\n")
    readme.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    table = render([Figure("what", "how", "much", "of that")], QUICK)
    publish("part", table, results, readme)
    assert results.read_text() == f"{other}<!-- part -->\n{table}<!-- end of part -->\n"
    assert readme.read_text() == f"before\n{BEGIN}{results.read_text()}{END}\nafter\n"


def test_a_table_without_goals_has_no_column_for_them() -> None:
    assert "| what | how | much | of that |\n" in render(
        [Figure("what", "how", "much", "of that")], QUICK
    )
    assert "| what | how | much | of that | 80 % |\n" in render(
        [Figure("what", "how", "much", "of that", "80 %")], QUICK
    )


@pytest.mark.parametrize("lacking", ["README.md", "results.md"])
def test_without_markers_nothing_is_written(tmp_path: Path, lacking: str) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text(f"{BEGIN}old\n{END}\n")
    results.write_text("<!-- part -->\nold\n<!-- end of part -->\n")
    (tmp_path / lacking).write_text("no markers\n")
    before = readme.read_text(), results.read_text()
    with pytest.raises(ValueError, match="markers"):
        publish("part", "table\n", results, readme)
    assert (readme.read_text(), results.read_text()) == before
