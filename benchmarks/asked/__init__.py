"""What was asked of this package under the loads of ``python -m benchmarks``.

loads.py  throughput and latency, beside the other contenders
cores.py  processor time, and beside ``asyncio.to_thread``
"""
