"""Measures gossip in virtual time against the size of the cluster: tables in Markdown, a plot.

``PYTHONPATH=src:tests python -m fakes.gossip_table --sizes 3,5,10 --seeds 5 --hours 1``; ``make
gossip`` is the short way. Runs are shared out to ``--jobs`` processes. What is measured, and how,
is in ``fakes.gossip_runs``.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from fakes import gossip_runs
from fakes.gossip_bounds import Bounds
from fakes.gossip_plot import Series, draw
from fakes.gossip_runs import Killed, Verdicts
from quorumlog.discovery.config import GossipConfig

T = TypeVar("T")

LAN: Final = GossipConfig.lan()
UDP_ALONE: Final = replace(LAN, stream_probes=False)
LIFEGUARD: Final = replace(LAN, suspicion_multiplier=5)
"""As the paper's evaluation: alpha is 5, beta 6."""

SWIM: Final = replace(LIFEGUARD, suspicion_max_multiplier=1, awareness_max=1)
"""Without local health and without suspicions that begin long; the buddy system stays."""

CONDITIONS: Final = (
    ("0 %", 0.0, LAN),
    ("10 %", 0.1, LAN),
    ("10 %, UDP alone", 0.1, UDP_ALONE),
    ("30 %", 0.3, LAN),
)
PAPER_SIZE: Final = 128
PAPER_CONFIGS: Final = (("SWIM", SWIM), ("Lifeguard", LIFEGUARD))
PAPER_ANOMALIES: Final = (
    (4, 2.048, 0.512, 24),
    (16, 2.048, 0.512, 24),
    (4, 16.384, 0.512, 4),
    (16, 16.384, 0.512, 4),
)
"""How many members are slow, for how long, how long not, and how often."""

EXCHANGES_S: Final = 360.0
"""Whole times between the exchanges of every size up to 256."""

_GARBAGE_THRESHOLD: Final = 200_000


class Seeds:
    """Runs the same for each of the seeds 1 to ``count``, in some processes."""

    def __init__(self, count: int, jobs: int) -> None:
        self.count = count
        self._pool = ProcessPoolExecutor(jobs, initializer=_collect_rarely)

    def each(self, run: Callable[[int], T]) -> list[T]:
        """What ``run(seed)``, a function of a module or a partial of one, returns for each."""
        return list(self._pool.map(run, range(1, self.count + 1)))


def failures(sizes: Sequence[int], seeds: Seeds) -> dict[tuple[str, int], list[Killed]]:
    """Prints a row for each size and condition, and returns its runs."""
    header(
        "members | loss | first suspected | first detection | full dissemination | bounds of a "
        "suspicion | bounds not kept | FP | suspected, an hour and pair"
    )
    runs: dict[tuple[str, int], list[Killed]] = {}
    for size in sizes:
        for name, loss, config in CONDITIONS:
            bounds = Bounds.of(size, config)
            killed = seeds.each(partial(gossip_runs.kill_one, size, config, loss))
            runs[name, size] = killed
            broken = sorted(name for run in killed for name in run.broken)
            row(
                size,
                name,
                _seconds(run.suspected_s for run in killed),
                _seconds(run.first_s for run in killed),
                _seconds(run.all_s for run in killed),
                f"{bounds.shortest_s:.1f} to {bounds.longest_s:.1f} s",
                ", ".join(broken) or "none",
                sum(run.false_positives for run in killed),
                f"{statistics.mean(run.load.suspicions_h for run in killed):.1f}",
            )
    return runs


def loads(runs: dict[tuple[str, int], list[Killed]]) -> None:
    """Packets and bytes of the same runs, before the kill."""
    conditions = [name for name, *_ in CONDITIONS]
    header("members | " + " | ".join(f"{name}" for name in conditions) + " | of states over TCP")
    for size in sorted({size for _, size in runs}):
        cells = []
        for name in conditions:
            load = [run.load for run in runs[name, size]]
            packets = statistics.mean(each.packets for each in load)
            packet_bytes = statistics.mean(each.packet_bytes for each in load)
            cells.append(f"{packets:.1f}, {packet_bytes:.0f} B")
        states = gossip_runs.watch(gossip_runs.formed(size, LAN).copy(1), EXCHANGES_S)
        row(size, *cells, f"{states.stream_bytes:.0f} B")


def faults(sizes: Sequence[int], seeds: Seeds) -> None:
    """One member in trouble among healthy ones, 10 % loss; and a cut through the middle."""
    kinds: dict[str, tuple[gossip_runs.Fault, int]] = {
        "stops for 20 s, runs for 10 s, eight times": (gossip_runs.Stops(20, 10), 8),
        "stops for 3 s, runs for 3 s, forty times": (gossip_runs.Stops(3, 3), 40),
        "messages wait 20 s, flow 10 s, eight times": (gossip_runs.IsSlow(20, 10), 8),
        "a third does not hear it, four minutes": (gossip_runs.UnheardByAThird(240), 1),
    }
    header("one member of | fault, at 10 % loss | runs | FP | FP- | packets a second and member")
    for size in sizes:
        for name, (fault, rounds) in kinds.items():
            run = partial(_trouble, size, LAN, 0.1, count=1, fault=fault, rounds=rounds)
            verdicts = seeds.each(run)
            sent = _mean(verdict.packets for verdict in verdicts)
            row(size, name, seeds.count, *_totals(verdicts), sent)
    print()
    header("members | cut in half for | loss | runs | everybody is back after")
    for size in sizes:
        for cut_s in (30.0, 180.0):
            for loss in (0.0, 0.1):
                healed = seeds.each(partial(gossip_runs.heal, size, LAN, loss, cut_s=cut_s))
                row(size, f"{cut_s:.0f} s", f"{loss:.0%}", seeds.count, _seconds(healed))


def joins(sizes: Sequence[int], seeds: Seeds) -> None:
    """All at once, with one of them as the seed."""
    losses = (0.0, 0.1, 0.2)
    header("members at once | runs | " + " | ".join(f"{loss:.0%} loss" for loss in losses))
    for size in sizes:
        joined = [seeds.each(partial(gossip_runs.join, size, LAN, loss)) for loss in losses]
        row(size, seeds.count, *map(_seconds, joined))


def paper(seeds: Seeds) -> None:
    """128 members, some of them slow: the measures of the Lifeguard paper."""
    header(
        "slow members | messages wait, flow | | FP | FP- | first detection | full dissemination | "
        "packets, bytes a second and member"
    )
    for count, wait_s, flow_s, rounds in PAPER_ANOMALIES:
        for name, config in PAPER_CONFIGS:
            fault = gossip_runs.IsSlow(wait_s, flow_s)
            run = partial(
                _trouble, PAPER_SIZE, config, 0.0, count=count, fault=fault, rounds=rounds
            )
            verdicts = seeds.each(run)
            sent = f"{_mean(v.packets for v in verdicts)}, "
            sent += f"{statistics.mean(v.packet_bytes for v in verdicts):.0f} B"
            shape = f"{wait_s} s, {flow_s} s, {rounds} times"
            row(count, shape, name, *_totals(verdicts), "", "", sent)
    for name, config in PAPER_CONFIGS:
        runs = seeds.each(partial(_slow_latencies, config))
        first, whole = zip(*(latency for run in runs for latency in run), strict=True)
        row(4, "32.768 s, once", name, "", "", _seconds(first), _seconds(whole), "")


def endurance(sizes: Sequence[int], seeds: Seeds, hours: float) -> None:
    """Healthy members at 10 % loss, in runs that together take ``hours`` for each size."""
    header("members | loss | seeds | virtual hours | suspicions | healthy members declared failed")
    for size in sizes:
        for name, loss, config in CONDITIONS[1:3]:
            run = partial(gossip_runs.endure, size, config, loss, hours=hours / seeds.count)
            runs = seeds.each(run)
            wrong = sum(len(run.failed) for run in runs)
            suspicions = sum(run.suspicions for run in runs)
            row(size, name, f"1 to {seeds.count}", f"{hours:g}", suspicions, wrong)
            for seed, endured in enumerate(runs, start=1):
                for at, where, who in endured.failed[:5]:
                    print(f"<!-- seed {seed}: after {at:.1f} s {where} declared {who} failed -->")


def speed(sizes: Sequence[int]) -> None:
    """How much faster than real time the simulation is, in CPU time."""
    header("members | starting at once, first 10 s | settled | 10 % loss | 10 %, UDP alone")
    for size in sizes:
        network = gossip_runs.GossipNetwork(1, LAN, 0.0)
        network.start_many(size)
        starting = _speed(network, 10.0)
        cells = []
        for _, loss, config in CONDITIONS[:3]:
            cells.append(_speed(gossip_runs.under_loss(size, config, loss, 1), 120.0))
        row(size, f"{starting:.1f} x", *(f"{cell:.0f} x" for cell in cells))


def plot(runs: dict[tuple[str, int], list[Killed]], path: Path) -> None:
    sizes = sorted({size for _, size in runs})

    def over_size(name: str, value: Callable[[Killed], float]) -> list[tuple[int, float]]:
        return [(size, statistics.median(map(value, runs[name, size]))) for size in sizes]

    detection = [
        Series("shortest suspicion", [(s, Bounds.of(s, LAN).shortest_s) for s in sizes], True),
        Series("first detection, no loss", over_size("0 %", lambda run: run.first_s)),
        Series("full dissemination, 10 % loss", over_size("10 %", lambda run: run.all_s)),
        Series("full dissemination, 30 % loss", over_size("30 %", lambda run: run.all_s)),
    ]
    load = [
        Series(f"{name} loss" if "UDP" not in name else name, over_size(name, _packets))
        for name, *_ in CONDITIONS
    ]
    path.write_text(
        draw(
            ("seconds from the kill (median)", detection),
            ("packets a second and member (median)", load),
        )
    )


def header(names: str) -> None:
    print(f"| {names} |\n|{'---|' * (names.count('|') + 1)}", flush=True)


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="3,5,10,25,50,100,200")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=1.0, help="of each size at 10 %% loss")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--plot", type=Path, help="where to write the plot")
    parser.add_argument("--only", default="speed,joins,failures,faults,paper,endurance")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    _collect_rarely()
    seeds = Seeds(options.seeds, options.jobs)
    for part in options.only.split(","):
        print(f"\n### {part}, seeds 1 to {options.seeds}\n", flush=True)
        match part:
            case "speed":
                speed(sizes)
            case "joins":
                joins(sizes, seeds)
            case "failures":
                runs = failures(sizes, seeds)
                print()
                loads(runs)
                if options.plot is not None:
                    plot(runs, options.plot)
            case "faults":
                faults(sizes, seeds)
            case "paper":
                paper(seeds)
            case "endurance":
                endurance(sizes, seeds, options.hours)
            case _:
                parser.error(f"there is no part {part!r}")


def _collect_rarely() -> None:
    """A network of many members is many objects that live long, and none of them is a cycle."""
    gc.set_threshold(_GARBAGE_THRESHOLD)


def _trouble(
    size: int,
    config: GossipConfig,
    loss: float,
    seed: int,
    count: int,
    fault: gossip_runs.Fault,
    rounds: int,
) -> Verdicts:
    network = gossip_runs.under_loss(size, config, loss, seed)
    troubled = network.rng.sample(list(network.nodes.values()), count)
    return gossip_runs.disturb(network, troubled, fault, rounds)


def _slow_latencies(config: GossipConfig, seed: int) -> list[tuple[float, float]]:
    network = gossip_runs.under_loss(PAPER_SIZE, config, 0.0, seed)
    troubled = network.rng.sample(list(network.nodes.values()), 4)
    return gossip_runs.slow_latencies(network, troubled, 32.768)


def _speed(network: gossip_runs.GossipNetwork, duration_s: float) -> float:
    start = time.process_time()
    network.run(duration_s)
    return duration_s / (time.process_time() - start)


def _packets(run: Killed) -> float:
    return run.load.packets


def _totals(verdicts: Sequence[Verdicts]) -> tuple[int, int]:
    return sum(v.false_positives for v in verdicts), sum(v.at_healthy for v in verdicts)


def _mean(values: Iterable[float]) -> str:
    return f"{statistics.mean(values):.1f}"


def _seconds(values: Iterable[float]) -> str:
    """Median and worst."""
    measured = list(values)
    return f"{statistics.median(measured):.1f} / {max(measured):.1f} s"


if __name__ == "__main__":
    main()
