"""``python -m fuzz --seconds 60``: fuzz every decoder with atheris. ``make fuzz`` is the short way.

Each target runs in a process of its own, for a fuzzer ends its process. What it learns stays in
``.cache/fuzz/<target>`` for the next time; an input that fails is written to ``.cache/fuzz`` too,
and ``python -m fuzz --input FILE --target NAME`` runs it again, with or without atheris.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzz.target import Target

CACHE: Final = Path(".cache/fuzz")
MEMORY_MIB: Final = 2048
"""A process that takes more is stopped, and that counts as a failure."""

ALLOCATION_MIB: Final = 256
"""The same for a single allocation."""

MAX_INPUT_BYTES: Final = 16 * 1024
INPUT_TIMEOUT_S: Final = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz every decoder.")
    parser.add_argument("--seconds", type=int, default=60, help="in all (default 60)")
    parser.add_argument("--target", help="this one only")
    parser.add_argument("--input", type=Path, help="run one input and nothing else")
    options = parser.parse_args()
    if options.seconds < 1:
        parser.error("--seconds is at least 1")
    if options.input is not None:
        _named(options.target, parser).run(options.input.read_bytes())
        return 0
    if options.target is not None:
        import atheris

        with atheris.instrument_imports(include=["quorumlog"]):
            target = _named(options.target, parser)
        _fuzz(target, options.seconds)
    return _fuzz_all(options.seconds)


def _named(name: str | None, parser: argparse.ArgumentParser) -> Target:
    from fuzz.targets import TARGETS

    for target in TARGETS:
        if target.name == name:
            return target
    parser.error(f"--target is one of {', '.join(each.name for each in TARGETS)}")


def _fuzz_all(seconds: int) -> int:
    from fuzz.targets import TARGETS

    share_s = max(seconds // len(TARGETS), 1)
    failed = []
    for target in TARGETS:
        command = [sys.executable, "-m", "fuzz", "--target", target.name]
        done = subprocess.run(
            [*command, "--seconds", str(share_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = done.stdout.decode(errors="replace").splitlines()
        runs = next((line for line in reversed(lines) if line.startswith("Done ")), "stopped")
        print(f"{target.name:20} {'failed' if done.returncode else 'ok':7} {runs}", flush=True)
        if done.returncode:
            failed.append(target.name)
            print("\n".join(f"    {line[:300]}" for line in lines[-40:]), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _fuzz(target: Target, seconds: int) -> None:
    """Never returns: the fuzzer ends the process, with a code other than 0 where it failed."""
    import atheris

    corpus = CACHE / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-malloc_limit_mb={ALLOCATION_MIB}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-artifact_prefix={CACHE}/{target.name}-",
        "-verbosity=1",
    ]
    atheris.Setup(arguments, lambda data: _run(target, data))
    atheris.Fuzz()


def _run(target: Target, data: bytes) -> None:
    target.run(data)


if __name__ == "__main__":
    sys.exit(main())
