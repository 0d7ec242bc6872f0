"""Lines in, records out."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.runner import Outcome, invoke
from client.fake_cluster import FakeCluster
from client.test_consumer import fill, filled
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.cli import produce as produce_module
from quorumlog.errors import InvalidBatch
from quorumlog.log.batch import CODEC_ZSTD
from quorumlog.types import RecordData


def lines(start: int, end: int) -> bytes:
    return b"".join(f"{number}\n".encode() for number in range(start, end))


def produce(cluster: FakeCluster, stdin: bytes, *options: str) -> Outcome:
    return invoke(cluster, "produce", "t", *options, stdin=stdin)


def on_request(cluster: FakeCluster, number: int, action: Callable[[], None]) -> None:
    """Do something when the ``number``-th produce request (from 1) arrives."""
    serve = cluster._produce

    def counting(address: str, request: pb.ProduceRequest) -> pb.ProduceResponse:
        if len(cluster.produced) + 1 == number:
            action()
        return serve(address, request)

    cluster._produce = counting  # type: ignore[method-assign]


def test_every_line_is_a_record_without_its_newline(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    outcome = produce(cluster, b"a\n\nb\r\n\xff\nlast")
    assert (outcome.code, outcome.err) == (0, "")
    assert partition.values() == [b"a", b"", b"b\r", b"\xff", b"last"]
    assert outcome.out == "5 records acknowledged in topic t\npartition 0: last offset 4\n"


def test_nothing_to_read_is_fine(cluster: FakeCluster) -> None:
    cluster.add_topic("t")
    outcome = produce(cluster, b"")
    assert (outcome.code, outcome.out) == (0, "0 records acknowledged in topic t\n")


def test_a_file_can_be_named_and_json_tells_programs(cluster: FakeCluster, tmp_path: Path) -> None:
    partition = cluster.add_topic("t", 2)[1]
    file = tmp_path / "lines"
    file.write_bytes(lines(0, 100_000))
    outcome = produce(cluster, b"", str(file), "--partition", "1", "--json")
    assert json.loads(outcome.out) == {
        "topic": "t",
        "records": 100_000,
        "contiguous": 100_000,
        "last_offsets": {"1": 99_999},
    }
    assert partition.values() == lines(0, 100_000).split()


def test_keys_are_cut_off_at_the_first_separator(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 3)
    produce(cluster, b"k:v:w\n:empty\nk:again\n", "--key-sep", ":")
    stored = {
        (record.key, record.value): partition.number
        for partition in cluster.topics["t"]
        for record in partition.records()
    }
    assert set(stored) == {(b"k", b"v:w"), (b"", b"empty"), (b"k", b"again")}
    assert stored[(b"k", b"v:w")] == stored[(b"k", b"again")]


def test_lines_are_compressed_on_request_and_read_as_any_other(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    outcome = produce(cluster, lines(0, 1000), "--compression", "zstd")
    assert (outcome.code, outcome.err) == (0, "")
    assert {batch.header.codec for batch in partition.batches} == {CODEC_ZSTD}
    consumed = invoke(cluster, "consume", "t", "--from", "earliest")
    assert consumed.out.encode() == lines(0, 1000)
    assert produce(cluster, b"", "--compression", "lz4").code == 2


def test_a_line_without_separator_is_named_and_what_went_before_is_counted(
    cluster: FakeCluster,
) -> None:
    cluster.add_topic("t")
    outcome = produce(cluster, b"a:1\nb\n", "--key-sep", ":")
    assert outcome.code == 1
    assert outcome.error_lines == [
        "quorumlog: line 2 has no key separator ':'; no line is acknowledged"
    ]


def test_a_line_over_the_limit_is_refused(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    outcome = produce(cluster, b"x" * (3 << 20) + b"\n")
    assert outcome.code == 1
    assert "the limit is 1048576" in outcome.err
    assert partition.values() == []


def test_a_failure_says_exactly_what_is_acknowledged(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    on_request(cluster, 3, lambda: cluster.produce_script.append(InvalidBatch("refused")))
    outcome = produce(cluster, lines(100_000, 400_000))
    assert outcome.code == 1
    acknowledged = sum(request.batch.record_count for _, request in cluster.produced[:2])
    assert f"refused; the first {acknowledged:,} lines are acknowledged" in outcome.err
    stored = [value for value in partition.values() if value is not None]
    assert stored[:acknowledged] == lines(100_000, 100_000 + acknowledged).split()


def test_later_lines_that_are_acknowledged_are_counted_apart(cluster: FakeCluster) -> None:
    partitions = cluster.add_topic("t", 2)
    cluster.produce_script.append(InvalidBatch("refused"))
    keyed = b"".join(f"{number % 7}:{number}\n".encode() for number in range(1000))
    outcome = produce(cluster, keyed, "--key-sep", ":", "--json")
    assert outcome.code == 1
    error = json.loads(outcome.err)
    stored = {
        int(value) for partition in partitions for value in partition.values() if value is not None
    }
    assert error["details"]["records"] == len(stored) > 0
    first_missing = next(number for number in range(1000) if number not in stored)
    assert error["details"]["contiguous"] == first_missing


def test_ctrl_c_says_how_many_lines_are_acknowledged_and_exits_130(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce_module, "LAST_ANSWERS_S", 0.01)
    partition = cluster.add_topic("t")[0]

    def interrupt() -> None:
        cluster.elect(partition, None)
        signal.raise_signal(signal.SIGINT)

    on_request(cluster, 3, interrupt)
    outcome = produce(cluster, lines(100_000, 900_000))
    assert outcome.code == 130
    acknowledged = partition.end_offset
    assert acknowledged > 0
    assert len(outcome.error_lines) == 1
    text = f"quorumlog: interrupted; the first {acknowledged:,} lines are acknowledged; "
    assert outcome.err.startswith(text)
    assert "more were queued, some may be stored" in outcome.err


def test_a_leader_change_in_the_middle_loses_and_doubles_nothing(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]

    def change() -> None:
        cluster.elect(partition, "n3:7400")
        cluster.break_streams("n1:7400")

    on_request(cluster, 2, change)
    outcome = produce(cluster, lines(100_000, 300_000))
    assert outcome.code == 0
    assert partition.values() == lines(100_000, 300_000).split()


def test_consume_prints_values_and_ends_at_the_end(cluster: FakeCluster) -> None:
    filled(cluster.add_topic("t")[0])
    outcome = invoke(cluster, "consume", "t")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.encode() == lines(0, 100)


@pytest.mark.parametrize(
    ("options", "start", "end"),
    [
        (["--from", "95"], 95, 100),
        (["--from", "latest"], 100, 100),
        (["--from", "earliest", "--count", "13"], 0, 13),
        (["--from", "37", "--count", "10"], 37, 47),
        (["--from", "1970-01-01T00:00:00.005Z"], 50, 100),
        (["--partition", "0"], 0, 100),
        (["--partition", "1"], 0, 0),
    ],
)
def test_consume_takes_the_part_asked_for(
    cluster: FakeCluster, options: list[str], start: int, end: int
) -> None:
    filled(cluster.add_topic("t", 2)[0])
    outcome = invoke(cluster, "consume", "t", *options)
    if options == ["--from", "95"] or "37" in options:
        # An offset is one of every partition: the other one has none.
        assert outcome.code == 1
        outcome = invoke(cluster, "consume", "t", *options, "--partition", "0")
    assert outcome.out.encode() == lines(start, end)


def test_count_waits_until_so_many_came(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    fill(partition, [b"1", b"2"])
    serve = cluster.fetched

    def fill_at_the_end(*arguments: object) -> pb.FetchResponse:
        response = serve(*arguments)  # type: ignore[arg-type]
        if partition.end_offset < 6:
            fill(partition, [b"3", b"4"])
        return response

    cluster.fetched = fill_at_the_end  # type: ignore[method-assign]
    outcome = invoke(cluster, "consume", "t", "--count", "5")
    assert outcome.out == "1\n2\n3\n4\n3\n"


def test_raw_is_the_bytes_and_nothing_else(cluster: FakeCluster) -> None:
    fill(cluster.add_topic("t")[0], [b"a", b"", b"bc"])
    assert invoke(cluster, "consume", "t", "--output", "raw").out == "abc"


def test_json_has_all_of_a_record_whatever_its_bytes(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    fill(
        partition,
        [
            RecordData("é".encode(), b"\xff", {"h": b"1", "b": b"\xfe"}),
            RecordData(None),
        ],
    )
    for option in (["--output", "json"], ["--json"]):
        outcome = invoke(cluster, "consume", "t", *option)
        records = [json.loads(line) for line in outcome.out.splitlines()]
        assert records == [
            {
                "topic": "t",
                "partition": 0,
                "offset": 0,
                "timestamp_ms": 1,
                "key_base64": "/w==",
                "value": "é",
                "headers": {"h": "1", "b_base64": "/g=="},
            },
            {
                "topic": "t",
                "partition": 0,
                "offset": 1,
                "timestamp_ms": 1,
                "key": None,
                "value": None,
                "headers": {},
            },
        ]


def test_ctrl_c_ends_following_with_130(cluster: FakeCluster) -> None:
    filled(cluster.add_topic("t")[0])
    serve = cluster.fetched

    def interrupt(partition: object, offset: int, size: int) -> pb.FetchResponse:
        signal.raise_signal(signal.SIGINT)
        return serve(partition, offset, size)  # type: ignore[arg-type]

    cluster.fetched = interrupt  # type: ignore[method-assign]
    outcome = invoke(cluster, "consume", "t", "--follow")
    assert outcome.code == 130
    assert outcome.err == "quorumlog: interrupted\n"
