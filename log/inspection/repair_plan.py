"""What a repair would do, as a list of values: made from what verify found, changes nothing.

A replica's log is not bridged: it would differ from its peers unnoticed.
"""

from quorumlog.log.inspection.damage import Flaw, Severity
from quorumlog.log.inspection.log_report import Verified
from quorumlog.log.inspection.repair_actions import KeepAside, Place, Plan, RenewHardState, Settle
from quorumlog.log.inspection.repair_layout import RepairLayout
from quorumlog.log.inspection.repair_parts import Part, end_of, is_unvouched, part_of
from quorumlog.log.inspection.repair_small import SmallRepairs
from quorumlog.types import Offset


def plan_repair(verified: Verified, now_ms: int) -> Plan:
    """The actions for what ``verified`` found: where there is damage an action or a refusal.

    Args:
        now_ms: milliseconds since the Unix epoch, for the headers of new segments.
    """
    plan = Plan()
    _plan_names(verified, plan)
    if not plan.actions:
        _plan_leftovers(verified, plan)
    if plan.actions:
        plan.is_partial = True
        plan.refusals += _refusals_of_unopened(verified)
        return plan
    _plan_owner_files(verified, plan)
    refusals = _refusals_of_files(verified)
    plan.refusals += refusals
    if verified.segments and not refusals:
        _plan_segments(verified, now_ms, plan)
    if not (plan.actions or plan.refusals or verified.report.is_clean):
        plan.refusals += _what_is_left(verified)
    return plan


def _plan_leftovers(verified: Verified, plan: Plan) -> None:
    """What a crash left of a compaction, finished or taken back."""
    inventory = verified.inventory
    for path in inventory.attempts:
        sentence = f"keep {path} aside: a compaction that came to nothing"
        plan.actions.append(KeepAside(sentence, path))
    damaged = {each.file for each in verified.report.findings if each.severity != Severity.NOTE}
    for each in inventory.compactions:
        if each.path in verified.superfluous:
            why = "it is damaged, and the segments it was made of are whole"
            plan.actions.append(KeepAside(f"keep {each.path} aside: {why}", each.path))
            continue
        [source] = [it for it in inventory.segments if it.path == each.path]
        sentence = f"put {each.path} in the place of its segments, as the next open would"
        kept = source.hidden if each.path in damaged else ()
        plan.actions.append(Settle(sentence, each.path, kept=kept))


def _plan_names(verified: Verified, plan: Plan) -> None:
    """Files that have to get their names, or to go, before the rest can be judged."""
    inventory = verified.inventory
    for each in inventory.findings:
        if each.flaw == Flaw.MISPLACED and each.severity == Severity.DAMAGE:
            sentence = f"keep {each.file} aside: it is {each.found}"
            plan.actions.append(KeepAside(sentence, each.file))
    compacted = {each.path for each in inventory.compactions}
    misplaced = {each.file for each in inventory.findings if each.flaw == Flaw.MISPLACED}
    misplaced -= {action.path for action in plan.actions}
    for source in inventory.segments:
        for path in source.hidden:
            if path in misplaced:
                sentence = f"keep {path} aside: {source.path} takes its place"
                plan.actions.append(KeepAside(sentence, path))
        if source.path != source.home and source.path not in compacted:
            sentence = f"rename {source.path} to {source.home}: that is the segment in it"
            plan.actions.append(Place(sentence, source.path, home=source.home))
    for part in map(part_of, verified.overlapping):
        if not part.examined.runs and part.examined.header is None:
            path = part.examined.source.path
            sentence = f"keep {path} aside: nothing in it can be read, and its place is taken"
            plan.actions.append(KeepAside(sentence, path))


def _plan_owner_files(verified: Verified, plan: Plan) -> None:
    for each in verified.report.findings:
        if each.flaw == Flaw.STATE_SNAPSHOT:
            sentence = f"keep {each.file} aside: it is damaged and not used"
            plan.actions.append(KeepAside(sentence, each.file))
        elif each.flaw == Flaw.HARD_STATE and each.severity == Severity.REPAIRABLE:
            sentence = f"store term and vote in {each.file} again, over a damaged slot"
            plan.actions.append(RenewHardState(sentence, each.file))
        elif each.flaw == Flaw.HARD_STATE:
            plan.refusals.append(
                f"{each.file} has lost term and vote, and nothing else knows them: remove this "
                "node from the cluster and let a new one take its place"
            )


def _refusals_of_files(verified: Verified) -> list[str]:
    """Why nothing can be said of the segments as they are."""
    inventory = verified.inventory
    refusals = [
        f"{each.source.path} begins inside of the segment before it: one of the two is of another "
        "state of this log, left by a copy perhaps; move that one away"
        for each in verified.overlapping
    ]
    refusals += _refusals_of_unopened(verified)
    is_empty = not (verified.segments or verified.unopened or inventory.unborn)
    if verified.report.is_replica and (inventory.lost_end or is_empty):
        refusals.append(_replica_has_lost_batches(verified))
    elif inventory.lost_end:
        refusals.append(
            f"{inventory.lost_end} is not there though its index is: restore it from a copy, or, "
            "to go on without it and use its offsets again, move that index away"
        )
    elif is_empty:
        directory = verified.report.directory
        refusals.append(f"nothing in {directory} can be read: restore it from a copy")
    return refusals


def _refusals_of_unopened(verified: Verified) -> list[str]:
    return [
        f"{each} cannot be opened: make it a file that can be read, or restore it from a copy"
        for each in verified.unopened
    ]


def _plan_segments(verified: Verified, now_ms: int, plan: Plan) -> None:
    report = verified.report
    marks = [each.mark for each in verified.segments if each.mark is not None]
    start_offset = max((mark.start_offset for mark in marks), default=Offset(0))
    parts = [part_of(each) for each in verified.segments]
    refusal = _refusal(verified, parts)
    if refusal:
        plan.refusals.append(refusal)
        if report.is_replica:
            SmallRepairs(plan, now_ms, start_offset, is_replica=True).run(parts)
        return
    alive = [part for part in parts if part.is_alive]
    if alive:
        first = alive[0].starts_at(None)
        leading = [part for part in parts[: parts.index(alive[0])] if part.begin is not None]
        if leading and leading[0].begin is not None:
            first = leading[0].begin
        start_offset = max(start_offset, first.offset)
    layout = RepairLayout(plan, report.directory, now_ms, start_offset)
    layout.run(parts, alive, end_of(parts))
    left = [part for part in alive if part.home not in layout.rewritten]
    SmallRepairs(plan, now_ms, start_offset, is_replica=report.is_replica).run(left)


def _refusal(verified: Verified, parts: list[Part]) -> str:
    """Why nothing can be bridged, or an empty string."""
    directory = verified.report.directory
    is_torn = any(part.is_broken for part in parts) or any(
        each.flaw in (Flaw.MISSING_SEGMENT, Flaw.MISSING_START) for each in verified.report.findings
    )
    if verified.report.is_replica and is_torn:
        return _replica_has_lost_batches(verified)
    last = parts[-1]
    is_end_lost = last.is_broken and end_of(parts) is None
    if is_unvouched(last) or is_end_lost:
        return (
            f"{last.home} is damaged and no mark says how far it went: the log cannot go on "
            "without using offsets again; restore this file from a copy, or begin a new log"
        )
    known = any(part.is_alive or part.begin is not None for part in parts)
    if not known:
        return f"nothing in {directory} can be read: restore it from a copy"
    return ""


def _replica_has_lost_batches(verified: Verified) -> str:
    return (
        f"{verified.report.directory} is one of several replicas and has lost batches: filled with "
        "a gap it would differ from the others unnoticed; remove this node from the cluster and "
        "let a new one take its place, which gets the batches from the others"
    )


def _what_is_left(verified: Verified) -> list[str]:
    """Of damage that no action mends."""
    return [
        f"{each}: nothing here mends that; restore the file from a copy, on a disk that reads it"
        for each in verified.report.findings
        if each.severity != Severity.NOTE
    ][:1]
