"""Producers and consumers of a cluster: ``AsyncClient`` and its synchronous twin ``Client``.

From the bottom up: ``transport`` (the port) and ``grpc_transport``; ``nodes``, ``routes`` and
``leader_calls`` find who answers; ``batch_queue``, ``link``, ``lane`` and ``producer`` write;
``reader`` and ``consumer`` read; ``client`` puts them together; ``sync`` runs it in a thread.
"""
