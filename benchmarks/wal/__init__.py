"""What becomes of the log file, and what keeping it small costs.

Three commands use it: ``wal_growth``, ``checkpoint_latency`` and ``wal_hour``, one floor up.
"""
