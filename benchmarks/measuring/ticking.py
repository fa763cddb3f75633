"""A process that writes a byte when each of some moments has come: the outside of an open loop.

Timers of the loop that is measured would not do: its selector rounds them up to milliseconds
(https://man7.org/linux/man-pages/man2/epoll_wait.2.html), and a request is an event of a socket.
Run by its path, so that it imports nothing else; the moments come over its standard input, as
doubles on the clock of :func:`time.perf_counter`, which all processes of a system share.
"""

import sys
from array import array
from time import perf_counter, sleep

BYTE = b"."


def main() -> None:
    """Say that it runs, with a byte; then one at each moment."""
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
