"""A year of departures through a cluster that loses a leader on the way: ``make run``.

Three nodes run as processes, 336,776 records are produced, the node that leads partition 0 is
killed half way with SIGKILL, and at the end every record is read back and checked. ``demo.py`` is
the story; every other module is one chapter of it.
"""
