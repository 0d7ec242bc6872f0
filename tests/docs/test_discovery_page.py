"""The program in docs/discovery.md is run as it stands there."""

import re
import subprocess
import sys

from docs.readme import ROOT

PAGE = ROOT / "docs" / "discovery.md"
EXAMPLE = re.compile(r"^```python\n(import .*?)^```\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_program_prints_what_the_page_says() -> None:
    ((program, output),) = EXAMPLE.findall(PAGE.read_text("utf-8"))
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, output), result.stderr
