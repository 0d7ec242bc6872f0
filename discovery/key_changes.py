"""Keys that change while gossip runs: by their file, which is looked at."""

import asyncio

import structlog

from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.errors import ConfigError

_log = structlog.get_logger(__name__)


async def watch_key_file(keys: GossipKeys, interval_s: float) -> None:
    """Take other keys from the ring's file whenever it has changed, until cancelled.

    A file with a mistake changes nothing and is logged once. Files are read on a thread.
    """
    while True:
        await asyncio.sleep(interval_s)
        try:
            if await asyncio.to_thread(keys.refresh):
                _log.info("gossip_keys_changed", keys=len(keys.keys))
        except ConfigError as error:
            _log.warning("gossip_keys_unusable", error=str(error))
