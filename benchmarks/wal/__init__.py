"""What becomes of the log file, and what keeping it small costs.

Three commands, one floor up, use it: ``wal_growth``, and ``checkpoint_latency`` and ``wal_hour``,
which have folders of their own here.
"""
