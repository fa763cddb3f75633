"""What SQLite takes as on: the value of a PRAGMA, or of a parameter of a URI."""

from __future__ import annotations

import re


def is_on(value: str) -> bool:
    """Return whether SQLite takes ``value``, in lower case, as on.

    SQLite uses the number at the beginning, of at most 32 bits, and of that the last eight bits
    (``getSafetyLevel()`` in its pragma.c, ``sqlite3GetInt32()`` in its util.c).
    """
    found = _NUMBER.match(value)
    if found is None:
        return value in _ON
    digits = found.group()
    if len(digits.lstrip("0x")) > _MOST_DIGITS:  # it counts as 0, and may have any length
        return False
    number = int(digits, 16 if "x" in digits else 10)
    return number < 2**31 and number & 0xFF != 0


_NUMBER = re.compile("0x[0-9a-f]+|[0-9]+")
_MOST_DIGITS = 10
_ON = frozenset({"on", "yes", "true"})
