"""A node's identity: born once, kept for life, never guessed."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from quorumlog.errors import Corrupt, LogLocked, UnusableDirectory
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.node.identity import Identity, IdentityFile, Proposal, Seat
from quorumlog.node.storage import DataDirectory
from quorumlog.replication.group_list import GroupList
from quorumlog.system import SystemDisk
from quorumlog.types import GroupId, NodeId, Term
from sim.disk import SimDisk, SimulatedCrash


def test_an_identity_survives_as_it_was(tmp_path: Path) -> None:
    file = IdentityFile(SystemDisk(), str(tmp_path))
    born = file.load_or_create()
    seats = (Seat(NodeId("a"), "one", "h:1"), Seat(born.node_id, "two", "h:2"))
    changed = Identity(born.node_id, "", seats, Proposal("c", NodeId("a"), seats), True)
    file.save(changed)
    assert IdentityFile(SystemDisk(), str(tmp_path)).load_or_create() == changed


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("last_change", range(1, 8))
def test_what_a_process_began_with_survives_a_power_cut(seed: int, last_change: int) -> None:
    """It may have promised or served on it; the process before died while it wrote it."""
    disk = SimDisk(Random(seed))
    first = DataDirectory.open(disk, "data")
    disk.crash_before(last_change)
    with suppress(SimulatedCrash):
        first.save(replace(first.identity, cluster_id="c"))
    disk.kill()
    second = DataDirectory.open(disk, "data")
    disk.crash()
    assert DataDirectory.open(disk, "data").identity == second.identity


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"format": 2}', b"\xff\xfe"])
def test_a_damaged_identity_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.json").write_bytes(content)
    with pytest.raises(Corrupt, match=r"node\.json"):
        DataDirectory.open(SystemDisk(), str(tmp_path))
    assert (tmp_path / "node.json").read_bytes() == content


def test_data_without_an_identity_is_not_adopted(tmp_path: Path) -> None:
    (tmp_path / "groups").mkdir()
    with pytest.raises(UnusableDirectory, match="whose data it is"):
        DataDirectory.open(SystemDisk(), str(tmp_path))


def test_a_directory_has_one_process(tmp_path: Path) -> None:
    first = DataDirectory.open(SystemDisk(), str(tmp_path))
    with pytest.raises(LogLocked, match="--data-dir"):
        DataDirectory.open(SystemDisk(), str(tmp_path))
    first.release()
    again = DataDirectory.open(SystemDisk(), str(tmp_path))
    assert again.identity == first.identity
    again.release()


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UnusableDirectory, match="--data-dir"):
        DataDirectory.open(SystemDisk(), str(tmp_path / "data"))


def test_an_emptied_directory_is_that_of_a_new_node(tmp_path: Path) -> None:
    first = DataDirectory.open(SystemDisk(), str(tmp_path))
    old = replace(first.identity, cluster_id="c")
    first.save(old)
    first.release()
    shutil.rmtree(tmp_path)
    again = DataDirectory.open(SystemDisk(), str(tmp_path))
    assert again.identity.node_id != old.node_id
    assert again.identity.cluster_id == ""


def test_an_identity_without_its_logs_does_not_come_back(tmp_path: Path) -> None:
    first = DataDirectory.open(SystemDisk(), str(tmp_path))
    first.save(replace(first.identity, cluster_id="c"))
    first.release()
    shutil.rmtree(tmp_path / "groups")
    for _ in range(2):
        with pytest.raises(UnusableDirectory, match="must not come back under its old id"):
            DataDirectory.open(SystemDisk(), str(tmp_path))


def test_a_new_directory_has_a_list_of_groups_that_lacks_none(tmp_path: Path) -> None:
    DataDirectory.open(SystemDisk(), str(tmp_path)).release()
    assert (tmp_path / "groups.list").exists()
    assert GroupList(SystemDisk(), str(tmp_path / "groups")).is_whole


def test_a_directory_of_before_the_list_is_taken_over_with_what_it_has(tmp_path: Path) -> None:
    directory = DataDirectory.open(SystemDisk(), str(tmp_path))
    directory.save(replace(directory.identity, cluster_id="c"))
    directory.release()
    (tmp_path / "groups.list").unlink()
    identity = json.loads((tmp_path / "node.json").read_text())
    del identity["lists_groups"]
    (tmp_path / "node.json").write_text(json.dumps(identity))
    (tmp_path / "groups" / "7").mkdir()
    file = HardStateFile(SystemDisk(), str(tmp_path / "groups" / "7" / "hard-state"))
    file.save(HardState(Term(5)))
    file.close()
    again = DataDirectory.open(SystemDisk(), str(tmp_path))
    again.release()
    assert again.identity.cluster_id == "c"
    listed = GroupList(SystemDisk(), str(tmp_path / "groups"))
    assert listed.is_whole
    assert (listed.term_bound(GroupId(7)) or 0) > 5


def test_a_list_that_was_lost_with_all_groups_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    DataDirectory.open(SystemDisk(), str(tmp_path)).release()
    (tmp_path / "groups.list").unlink()
    for _ in range(2):
        DataDirectory.open(SystemDisk(), str(tmp_path)).release()
        listed = GroupList(SystemDisk(), str(tmp_path / "groups"))
        assert listed.groups() == []
        assert listed.may_lack(GroupId(7))


def test_a_group_that_is_lost_stays_listed_over_restarts(tmp_path: Path) -> None:
    DataDirectory.open(SystemDisk(), str(tmp_path)).release()
    GroupList(SystemDisk(), str(tmp_path / "groups")).cover(GroupId(7), Term(3))
    for _ in range(2):
        DataDirectory.open(SystemDisk(), str(tmp_path)).release()
        listed = GroupList(SystemDisk(), str(tmp_path / "groups"))
        assert listed.groups() == [GroupId(7)]
        assert listed.is_whole
