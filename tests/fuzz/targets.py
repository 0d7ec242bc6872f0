"""Every decoder that meets bytes nobody vouches for. A new decoder is a new line here."""

from typing import Final

from fuzz.core_targets import CORE_TARGETS
from fuzz.gossip_targets import GOSSIP_TARGETS
from fuzz.group_targets import GROUP_TARGETS
from fuzz.log_targets import LOG_TARGETS
from fuzz.message_targets import MESSAGE_TARGETS
from fuzz.node_targets import NODE_TARGETS
from fuzz.serf_targets import SERF_TARGETS
from fuzz.storage_targets import STORAGE_TARGETS
from fuzz.text_targets import TEXT_TARGETS

TARGETS: Final = (
    *STORAGE_TARGETS,
    *LOG_TARGETS,
    *MESSAGE_TARGETS,
    *GROUP_TARGETS,
    *GOSSIP_TARGETS,
    *SERF_TARGETS,
    *CORE_TARGETS,
    *TEXT_TARGETS,
    *NODE_TARGETS,
)
