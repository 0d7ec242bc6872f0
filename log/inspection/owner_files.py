"""Checking what the owner of a replica's log keeps beside it. Changes nothing."""

from quorumlog.errors import Corrupt
from quorumlog.log.hard_state import read_hard_state
from quorumlog.log.inspection.damage import Finding, Flaw, Severity
from quorumlog.log.state_snapshot import load_newest
from quorumlog.ports import Disk


def check_hard_state(disk: Disk, path: str, attempts: int = 1) -> list[Finding]:
    """What is wrong with a hard state.

    Args:
        attempts: how often it is read, where somebody may be writing it.
    """
    findings = _hard_state_findings(disk, path)
    if findings and attempts > 1:
        return check_hard_state(disk, path, attempts - 1)
    return findings


def _hard_state_findings(disk: Disk, path: str) -> list[Finding]:
    try:
        _, damaged = read_hard_state(disk, path)
    except Corrupt as error:
        return [
            Finding(
                Severity.DAMAGE, Flaw.HARD_STATE, path, error.position, error.expected, error.got
            )
        ]
    except OSError as error:
        found = f"an error: {error.strerror}"
        return [Finding(Severity.DAMAGE, Flaw.UNREADABLE, path, 0, "a term and a vote", found)]
    return [
        Finding(
            Severity.REPAIRABLE,
            Flaw.HARD_STATE,
            path,
            at,
            "a valid slot",
            "damage; the other counts",
        )
        for at in damaged
    ]


def check_snapshot(disk: Disk, directory: str, path: str, index: int) -> list[Finding]:
    found = load_newest(disk, directory, index)
    newest = found.snapshot
    if newest is not None and newest.index == index:
        return []
    return [
        Finding(
            Severity.REPAIRABLE,
            Flaw.STATE_SNAPSHOT,
            path,
            0,
            "a state snapshot",
            f"damage ({error}): it is not used",
        )
        for error in found.damage[:1]
    ]
