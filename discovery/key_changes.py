"""Keys that change while gossip runs: by their file, which is looked at, or by a Serf agent."""

import asyncio
import base64
from typing import Final

import structlog

from quorumlog.discovery.core.output import KeyChange
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.wire.serf_messages import KeyAnswer
from quorumlog.errors import ConfigError, InvalidArgument

_log = structlog.get_logger(__name__)

NOT_ENCRYPTED: Final = "the gossip of this node is not encrypted, so it has no keys to change"
"""Also where something is still taken or sent in clear: there anybody could ask
for the keys, or read the answer."""


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
        except Exception:
            # Keys that are never looked at again would be found out at the next rotation only.
            _log.exception("gossip_key_check_failed")


async def change_keys(keys: GossipKeys, change: KeyChange, key: bytes) -> KeyAnswer:
    """Do what a Serf agent asks for, files on a thread, and say how it went."""
    try:
        match change:
            case KeyChange.LIST:
                listed = tuple(base64.b64encode(each).decode() for each in keys.keys)
                return KeyAnswer(True, keys=listed, primary=listed[0])
            case KeyChange.INSTALL:
                await asyncio.to_thread(keys.install, key)
            case KeyChange.USE:
                await asyncio.to_thread(keys.use, key)
            case KeyChange.REMOVE:
                await asyncio.to_thread(keys.remove, key)
    except (ConfigError, InvalidArgument) as error:
        _log.warning("gossip_key_change_refused", change=change.value, error=str(error))
        return KeyAnswer(False, str(error))
    _log.info("gossip_keys_changed", change=change.value, keys=len(keys.keys))
    return KeyAnswer(True)
