"""Files of format v1, as they were written once: read to the last bit, and written the same."""

import json
from dataclasses import replace

import pytest

from quorumlog.errors import Corrupt, KeyMissing
from quorumlog.log.batch import SPARSE, Kind
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.index_files import seal_of
from quorumlog.log.log import Log
from quorumlog.log.segment_header import decode_segment_header
from quorumlog.log.sparse_index import decode_index
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot, load_newest
from quorumlog.types import Index, NodeId, Offset, Term
from stored.batches import DIRECTORY, FixedClock, append, content, open_log
from stored.golden import (
    CONFIG,
    EXPECTED,
    GOLDEN,
    LOGS,
    READ_ONLY,
    STRUCTURES,
    config_of,
    disk_with,
    stored_files,
    told,
)


@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_format_v1_says_what_it_said_when_it_was_written(name: str) -> None:
    expected = json.loads((GOLDEN / EXPECTED).read_text())[name]
    assert json.loads(json.dumps(told(stored_files(name), config_of(name)))) == expected


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name not in READ_ONLY])
def test_this_release_writes_the_same_bytes(name: str) -> None:
    made, stored = STRUCTURES[name](), stored_files(name)
    assert sorted(made) == sorted(stored)
    for file, data in made.items():
        assert data == stored[file], f"{name}/{file}"


@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_format_v1_takes_more(name: str) -> None:
    disk = disk_with(stored_files(name))
    log = open_log(disk, config_of(name))
    before = content(log)
    append(log, 5, term=9, values=[b"z" * 300])
    log.close()
    log = open_log(disk, config_of(name))
    assert content(log)[: len(before)] == before
    assert len(content(log)) == len(before) + 5
    log.close()


def test_the_files_hold_every_structure_of_the_format() -> None:
    expected = json.loads((GOLDEN / EXPECTED).read_text())
    batches = [batch for log in expected.values() for batch in log["batches"]]
    assert {batch[3] for batch in batches} == {kind.name for kind in Kind}
    assert {batch[10] for batch in batches} == {0, 1}
    assert any(batch[11] & SPARSE for batch in batches)
    assert {each[3] for each in expected["encrypted"]["segments"]} == {"2026-05", "2026-11"}
    assert any(each[2] for each in expected["compacted"]["segments"])
    assert expected["leftover"]["recovery"][2] == 1
    assert expected["killed"]["recovery"][0] is False
    assert expected["plain"]["recovery"][0] is True
    assert expected["plain"]["range"][2] == 1
    assert any(file.endswith(".compacted") for file in stored_files("leftover"))


def test_index_files_of_format_v1_are_used() -> None:
    files = stored_files("plain")
    segments = sorted(name for name in files if name.endswith(".log"))
    assert len(segments) > 2
    for number, name in enumerate(segments):
        header = decode_segment_header(files[name], name)
        following = segments[number + 1] if number + 1 < len(segments) else f"{11:020d}.log"
        seal = seal_of(header, int(following[:20]) - 1, len(files[name]))
        raw = files[name.replace(".log", ".index")]
        index = decode_index(raw, seal, CONFIG.index_interval_bytes)
        assert index is not None
        assert index.encode(seal) == raw


def test_an_encrypted_log_of_format_v1_needs_its_key() -> None:
    with pytest.raises(KeyMissing):
        Log.open(disk_with(stored_files("encrypted")), DIRECTORY, CONFIG, FixedClock())


@pytest.mark.parametrize("name", ["hard-state", "hard-state-twice"])
def test_term_and_vote_of_format_v1_are_read(name: str) -> None:
    disk = disk_with(stored_files(name))
    state = HardStateFile(disk, f"{DIRECTORY}/hard-state").load()
    assert state == HardState(Term(5), NodeId("0123456789abcdef" * 2))


def test_a_state_of_format_v1_is_read() -> None:
    found = load_newest(disk_with(stored_files("state")), DIRECTORY, 9).snapshot
    assert found == StateSnapshot(
        Index(9), Term(2), Offset(64), 1_080, b"configuration", b"state" * 9
    )


def test_a_log_begins_where_an_installed_state_of_format_v2_says() -> None:
    disk = disk_with(stored_files("installed"))
    log = open_log(disk, CONFIG)
    start = LogOrigin(Index(7), Offset(50), Term(1), 1_050, Offset(50))
    assert (log.origin, log.last_index) == (start, 6)
    assert load_newest(disk, DIRECTORY, 9).snapshot == StateSnapshot(
        Index(9),
        Term(2),
        Offset(64),
        1_080,
        b"configuration",
        b"state" * 9,
        replace(start, start_offset=Offset(53)),
    )
    log.close()


@pytest.mark.parametrize(("position", "digit"), [(3, 2), (3, 255)])
def test_a_segment_of_a_later_format_is_refused(position: int, digit: int) -> None:
    files = stored_files("plain")
    last = max(name for name in files if name.endswith(".log"))
    raw = bytearray(files[last])
    raw[position] = digit
    files[last] = bytes(raw)
    with pytest.raises(Corrupt, match="magic"):
        open_log(disk_with(files), CONFIG)
