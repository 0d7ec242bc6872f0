"""How ``quorumlog log repair`` says what it would do, or did."""

import sys
from typing import Any

from quorumlog.log.inspection.repair import RepairReport


def print_repair(report: RepairReport, *, is_done: bool) -> None:
    """Print what is to be done with one log, or was."""
    if report.error:
        print(f"{report.directory}: failed: {report.error}", file=sys.stderr)
        return
    print(f"{report.directory}: {_summary(report)}")
    for action in report.actions:
        print(f"  {action.sentence}")
    if report.is_partial:
        print("  these come first; what there is to do then, and may be lost, is known afterwards")
    for refusal in report.refusals:
        print(f"  cannot be repaired: {refusal}")
    if report.kept:
        print(f"  what was removed or written over is kept in {report.kept}")
    if is_done and report.after is not None and report.actions:
        print(f"  {'all is well now' if report.after.is_clean else 'not all is well: verify it'}")


def document_of(report: RepairReport) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "directory": report.directory,
        "actions": [
            {
                "action": type(action).__name__,
                "path": action.path,
                "sentence": action.sentence,
                "lost_offsets": [list(span) for span in action.lost],
            }
            for action in report.actions
        ],
        "partial": report.is_partial,
        "refusals": report.refusals,
        "error": report.error or None,
        "kept": report.kept or None,
        "clean": None if report.after is None else report.after.is_clean,
    }


def _summary(report: RepairReport) -> str:
    if not report.actions and not report.refusals:
        return "nothing to repair"
    if not report.actions:
        return "cannot be repaired as it is"
    lost = [str(span) for action in report.actions for span in action.lost]
    return f"offsets {', '.join(lost)} are lost" if lost else "no record is lost by this"
