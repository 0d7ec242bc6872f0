"""The storage benchmarks, at a thousandth of their size: what they measure, not how fast it is."""

import os
import random
from pathlib import Path

import pytest

from bench.figures import Scale
from bench.logs import append_many, disk_bytes, draft_of, make_log, open_log, segment_paths
from bench.sparse_disk import SparseDisk
from bench.storage import measure_storage
from bench.storage_sqlite import SqliteLog
from quorumlog.log.batch import Draft

_TINY = Scale(repeats=1, factor=0.0005)


def test_every_figure_is_measured_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "src")]))
    figures = measure_storage(tmp_path, _TINY)
    assert len({figure.what + figure.configured for figure in figures}) == len(figures) == 22
    assert all(figure.measured and figure.configured for figure in figures)
    assert sum(bool(figure.goal) for figure in figures) == 18
    assert list(tmp_path.iterdir()) == []


def test_a_log_on_the_sparse_disk_is_a_log_and_takes_no_room(tmp_path: Path) -> None:
    draft = Draft.of(bytes(1024 * 1024), 1)
    make_log(tmp_path, draft, 100, SparseDisk(draft.body))
    sizes = [path.stat().st_size for path in segment_paths(tmp_path)]
    assert len(sizes) == 2
    assert sum(sizes) > 100 * len(draft.body)
    assert disk_bytes(tmp_path) < len(draft.body)
    log = open_log(tmp_path)
    try:
        batches = list(log.batches(1))
    finally:
        log.close()
    assert [batch.header.index for batch in batches] == list(range(1, 101))
    assert all(bytes(batch.body) == draft.body for batch in batches)


def test_a_made_log_has_a_timestamp_a_millisecond(tmp_path: Path) -> None:
    draft = draft_of(1000, 100)
    make_log(tmp_path, draft, 10)
    log = open_log(tmp_path)
    try:
        first = next(log.headers(1)).timestamp_ms
        assert [header.timestamp_ms - first for header in log.headers(1)] == list(range(10))
        assert log.end_offset == 10 * draft.record_count
        append_many(log, draft, 1)
        assert log.last_index == 11
    finally:
        log.close()


def test_the_table_in_sqlite_holds_what_was_appended(tmp_path: Path) -> None:
    chosen = random.Random(0)
    values = [chosen.randbytes(100) for _ in range(10)]
    table = SqliteLog(tmp_path / "log.sqlite", "FULL")
    table.append_batch(values)
    table.append_batch(values)
    rows = [(offset, key, value) for offset, key, value, _ in table.rows()]
    table.close()
    assert rows == [(number + 1, None, value) for number, value in enumerate(values * 2)]
