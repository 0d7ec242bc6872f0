"""``quorumlog log`` on real files: what is printed, and the exit codes."""

import json
from pathlib import Path

import pytest

import quorumlog
from cli.runner import Outcome, invoke
from quorumlog.log.segment import DATA_START

FIRST = f"{1:020d}.log"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    with quorumlog.open(path, segment_bytes=1024) as log:
        for number in range(20):
            log.append(b"value %d" % number, key=b"k", headers={"h": b"\xff"})
    return path


def run(*arguments: object) -> Outcome:
    return invoke(None, "log", *map(str, arguments))


def damage(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def test_verify_says_that_all_is_well(directory: Path) -> None:
    outcome = run("verify", directory)
    assert (outcome.code, outcome.err) == (0, "")
    assert "clean" in outcome.out
    assert "[0, 20)" in outcome.out


def test_verify_names_damage_and_the_way_out(directory: Path) -> None:
    damage(directory / FIRST, DATA_START + 90)
    outcome = run("verify", directory)
    assert outcome.code == 1
    assert f"{directory / FIRST} at byte {DATA_START}" in outcome.out
    assert "offsets [0, 1)" in outcome.out
    assert f"`quorumlog log repair {directory}`" in outcome.out


def test_verify_for_programs(directory: Path) -> None:
    damage(directory / FIRST, DATA_START + 90)
    document = json.loads(run("verify", directory, "--json").out)
    assert document["clean"] is False
    [log] = document["logs"]
    [finding] = log["findings"]
    assert (log["batches"], log["end_offset"], finding["severity"]) == (19, 20, "damage")
    assert (finding["offsets"], finding["position"]) == ([0, 1], DATA_START)


def test_an_open_log_is_verified_and_not_repaired(directory: Path) -> None:
    with quorumlog.open(directory) as log:
        log.append(b"more")
        outcome = run("verify", directory)
        assert (outcome.code, "in use" in outcome.out) == (0, True)
        refused = run("repair", directory, "--yes")
    assert refused.code == 1
    assert len(refused.error_lines) == 1
    assert "stop the process" in refused.err


def test_dump_prints_batches_and_records(directory: Path) -> None:
    outcome = run("dump", directory, "--from", 18)
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 3
    records = run("dump", directory, "--records", "--from", 18).out.splitlines()
    assert [line.split("\t")[1] for line in records] == ["value 18", "value 19"]
    [line] = run("dump", directory, "--records", "--count", 1, "--json").out.splitlines()
    record = json.loads(line)
    assert (record["offset"], record["value"]) == (0, "value 0")
    assert record["headers"] == {"h_base64": "/w=="}


def test_dump_goes_on_behind_damage_and_says_so(directory: Path) -> None:
    damage(directory / FIRST, DATA_START + 90)
    outcome = run("dump", directory, "--records", "--count", 2)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0].startswith("--- batches")
    assert lines[1].endswith("value 1")


def test_repair_says_what_it_would_do_and_does_it_with_yes(directory: Path) -> None:
    damage(directory / FIRST, DATA_START + 90)
    before = (directory / FIRST).read_bytes()
    outcome = run("repair", directory)
    assert outcome.code == 1
    assert "offsets [0, 1) are lost" in outcome.out
    assert "with --yes" in outcome.out
    assert (directory / FIRST).read_bytes() == before
    done = run("repair", directory, "--yes")
    assert (done.code, "all is well now" in done.out) == (0, True)
    [kept] = directory.glob("removed-*")
    assert (kept / FIRST).read_bytes() == before
    assert run("verify", directory).code == 0
    assert "nothing to repair" in run("repair", directory).out
    with quorumlog.open(directory) as log:
        assert [record.offset for record in log.read()] == list(range(1, 20))
        assert log.append(b"next") == 20


def test_one_log_that_is_in_use_does_not_hide_what_was_done_to_the_others(
    directory: Path, tmp_path: Path
) -> None:
    damage(directory / FIRST, DATA_START + 90)
    with quorumlog.open(tmp_path / "other") as log:
        log.append(b"value")
        outcome = run("repair", tmp_path, "--yes", "--json")
        text = run("repair", tmp_path).err
    assert outcome.code == 1
    repaired, open_one = json.loads(outcome.out)["logs"]
    assert (repaired["clean"], repaired["error"]) == (True, None)
    assert "stop the process" in open_one["error"]
    assert "failed: " in text


def test_a_plan_that_is_not_the_whole_plan_says_so(directory: Path) -> None:
    (directory / f"{2:020d}.log").write_bytes(b"junk")
    assert "is known afterwards" in run("repair", directory).out
    [log] = json.loads(run("repair", directory, "--json").out)["logs"]
    assert log["partial"] is True
    assert run("repair", directory, "--yes").code == 0
    assert run("verify", directory).code == 0


def test_directories_and_names_that_are_no_text_are_said_and_not_stumbled_over(
    directory: Path,
) -> None:
    (directory / "\udcff").write_bytes(b"")
    (directory / f"{99:020d}.log").mkdir()
    (directory / f"{1:020d}.index").unlink()
    (directory / f"{1:020d}.index").mkdir()
    outcome = run("verify", directory)
    assert (outcome.code, outcome.err) == (1, "")
    assert "\\udcff" in outcome.out
    refused = run("repair", directory, "--yes")
    assert refused.code == 1
    assert "cannot be opened" in refused.out
    (directory / f"{99:020d}.log").rmdir()
    assert run("repair", directory, "--yes").code == 0
    assert run("verify", directory).code == 0


def test_repair_for_programs(directory: Path) -> None:
    (directory / FIRST).unlink()
    document = json.loads(run("repair", directory, "--json").out)
    assert document["done"] is False
    assert document["logs"][0]["actions"][0]["lost_offsets"]
    document = json.loads(run("repair", directory, "--json", "--yes").out)
    assert document["logs"][0]["clean"] is True


def test_keys_open_encrypted_records(tmp_path: Path) -> None:
    from quorumlog.log.key_ring import KeyRing

    keys, data = tmp_path / "keys.toml", tmp_path / "data"
    assert run("new-key", keys, "k1").code == 0
    with quorumlog.open(data, keys=KeyRing.load(str(keys))) as log:
        log.append(b"secret")
    outcome = run("dump", data, "--records")
    assert (outcome.code, "key" in outcome.out, "secret" in outcome.out) == (1, True, False)
    outcome = run("dump", data, "--records", "--keys", keys)
    assert (outcome.code, "secret" in outcome.out) == (0, True)
    assert "no keys were given" in run("verify", data).out
    assert "no keys were given" not in run("verify", data, "--keys", keys).out


@pytest.mark.parametrize("command", ["verify", "dump", "repair"])
def test_a_directory_without_a_log_is_one_line_with_the_way_out(
    tmp_path: Path, command: str
) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        outcome = run(command, path)
        assert outcome.code == 1
        assert len(outcome.error_lines) == 1
        assert "give the directory of a log" in outcome.err


def test_new_key_adds_keys_and_refuses_a_name_twice(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    assert "new key one, active now" in run("new-key", path, "one").out
    assert run("new-key", path, "two").code == 0
    refused = run("new-key", path, "two")
    assert refused.code == 2
    assert "there is a key 'two' already" in refused.err
