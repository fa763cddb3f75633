"""A process that writes one byte at each of a list of times: the outside of an open loop.

Timers of the measured loop would not do: its selector rounds them up to milliseconds
(https://man7.org/linux/man-pages/man2/epoll_wait.2.html), and a request is an event of a socket.
It is run by its path, so it imports nothing else. It reads the times from standard input, as
doubles on the clock of :func:`time.perf_counter`, which all processes of a system share.
"""

import sys
from array import array
from time import perf_counter, sleep

BYTE = b"."


def main() -> None:
    """Write a byte to report the start; then write one at each of the times."""
    sys.stdout.buffer.write(BYTE)
    sys.stdout.buffer.flush()
    moments = array("d")
    moments.frombytes(sys.stdin.buffer.read())
    for moment in moments:
        sleep(max(0.0, moment - perf_counter()))
        sys.stdout.buffer.write(BYTE)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
