"""Who is out there: SWIM membership that speaks memberlist's wire protocol.

``core`` decides (no input or output), ``wire`` turns messages into bytes and back, ``gossip`` is
the asyncio shell around both. Gossip proposes, Raft decides: nothing here changes who votes.
"""
