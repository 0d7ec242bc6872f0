"""Settings that hold for the whole cluster: a part of its metadata, set by a command.

Not in the nodes' own settings: only one value can hold, whoever leads, and an operator who takes a
machine out for an afternoon has to be able to change it without a restart.
"""

from dataclasses import dataclass, replace
from typing import Final

from quorumlog.broker._pb import metadata_pb2
from quorumlog.errors import InvalidArgument

MIN_REPLACE_FAILED_S: Final = 5
"""Less would take a node that restarts for one that is gone."""

MAX_REPLACE_FAILED_S: Final = 604_800


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    replace_failed_after_s: int = 0
    """A node that the metadata's leader did not hear for so many seconds has its replicas made anew
    on others; 0: never. 5 to 604,800 (a week). Less has full redundancy back sooner, and copies
    for nothing when the node comes back."""

    def changed_by(self, message: metadata_pb2.SetCluster) -> "ClusterSettings":
        """With what ``message`` names."""
        if not message.HasField("replace_failed_after_s"):
            return self
        return replace(self, replace_failed_after_s=message.replace_failed_after_s)


def check_cluster_settings(message: metadata_pb2.SetCluster) -> None:
    """Raise InvalidArgument for a value out of its bounds."""
    seconds = message.replace_failed_after_s
    if seconds and not MIN_REPLACE_FAILED_S <= seconds <= MAX_REPLACE_FAILED_S:
        raise InvalidArgument(
            f"replace_failed_after_s is {seconds}: it goes from {MIN_REPLACE_FAILED_S} to "
            f"{MAX_REPLACE_FAILED_S}, or is 0: never"
        )
