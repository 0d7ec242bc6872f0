"""Stories about small groups, told in ``scripts/*.txt``, happen as they are written there."""

from pathlib import Path

import pytest

from raft.script import replay

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 9


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    expected = path.read_text()
    assert replay(expected) == expected, (
        f"look at what changed: PYTHONPATH=src:tests python -m raft.script --rewrite {path}"
    )
