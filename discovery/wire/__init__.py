"""memberlist's and Serf's bytes: messages, packets, streams, compression, tags.

Every decoder returns a value or raises :class:`~quorumlog.errors.ProtocolError`; lengths are
checked before memory is taken.
"""
