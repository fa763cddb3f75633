"""The targets of this package under the loads of ``python -m benchmarks``.

loads.py  throughput and latency, compared to the other contenders
cores.py  processor time, and comparison to ``asyncio.to_thread``
"""
