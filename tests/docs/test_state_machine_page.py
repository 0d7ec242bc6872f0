"""What docs/state-machine.md shows is run as it stands there, and is typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.readme import ROOT
from examples.local_cluster import free_address

PAGE = ROOT / "docs" / "state-machine.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
PRINTED = ["b'1 open'\ncannot open kitchen now\n{'kitchen'}\n", "counted once\n"]


def _run(command: list[str], directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=110
    )


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_an_example_prints_what_it_should(number: int, tmp_path: Path) -> None:
    assert len(BLOCKS) == len(PRINTED)
    program = BLOCKS[number].replace("127.0.0.1:7501", free_address())
    result = _run(["-W", "error", "-c", program], tmp_path)
    assert result.returncode == 0, result.stderr
    # What the node logs stands between.
    lines = [line for line in result.stdout.splitlines() if not re.match(r"\S*\d{4}-\d\d-", line)]
    assert "".join(f"{line}\n" for line in lines) == PRINTED[number]


def test_the_examples_pass_a_strict_type_checker(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"example_{number}.py").write_text(block, "utf-8")
    wrong = BLOCKS[0].replace("def apply(self, command: Command)", "def apply(self, command: str)")
    (tmp_path / "wrong.py").write_text(wrong, "utf-8")
    # With a cache of its own: the next run takes a second.
    cache = ROOT / ".cache" / "mypy-of-examples"
    result = _run(["-m", "mypy", "--strict", "--cache-dir", str(cache), "."], tmp_path)
    errors = [line for line in result.stdout.splitlines() if ": error: " in line]
    assert errors
    assert {line.partition(":")[0] for line in errors} == {"wrong.py"}
    assert any('has incompatible type "Doors"; expected "Machine"' in line for line in errors)
