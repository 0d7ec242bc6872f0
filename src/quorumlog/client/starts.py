"""Where a reader begins."""

from datetime import datetime
from typing import Literal

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.errors import InvalidArgument

Start = Literal["earliest", "latest"] | int | datetime
"""``earliest``, ``latest`` (only what comes from now on), an offset, or a time: the first record
appended at or after it."""


def start_message(start: Start) -> pb.Start:
    """``start`` on the wire.

    Raises:
        InvalidArgument: a negative offset, a time without time zone, another word.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise InvalidArgument(f"the time {start.isoformat()} has no time zone: add one")
        return pb.Start(timestamp_ms=max(0, round(start.timestamp() * 1000)))
    if start == "earliest":
        return pb.Start(earliest=True)
    if start == "latest":
        return pb.Start(latest=True)
    if isinstance(start, int) and not isinstance(start, bool):
        if not 0 <= start < 1 << 63:
            raise InvalidArgument(f"offset {start} is not between 0 and 2^63")
        return pb.Start(offset=start)
    raise InvalidArgument(f"{start!r} is not 'earliest', 'latest', an offset or a datetime")
