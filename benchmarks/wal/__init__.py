"""The growth of the log file, and the cost of keeping it small.

Three commands, one floor up, use it: ``wal_growth``, and ``checkpoint_latency`` and ``wal_hour``,
which have their own folders here.
"""
