"""The locks of other processes, and their names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sa_sqlite_pool.system.proc_locks import processes

_SLEEPER = """
with open("/proc/self/comm", "wb") as file:
    file.write("kassenbuch2026é".encode())
print(flush=True)
input()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_name_that_the_kernel_has_cut_within_a_character() -> None:
    """The cut is after 15 bytes. A wait's time-out error contains the name, and is not replaced."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert processes([process.pid]) == [f"process {process.pid} (kassenbuch2026\ufffd)"]
    finally:
        process.communicate(b"\n")
