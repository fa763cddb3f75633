"""SQLite without memory rolls back earlier writes: ``MemoryError``, not an error of its family."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children import Child, needs_fork_server
from tests.doors.out_of_memory import a_function_reads_too_much, reads_too_much

LOST = "rolled back this transaction on its own (out of memory)"


@needs_fork_server
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
def test_the_rest_of_a_transaction_is_refused(path: Path, placement: str) -> None:
    """The second half is never committed without the first; after rollback(), work continues."""
    with Child(reads_too_much, path, placement) as child:
        assert child.hear() == "out of memory"
        assert LOST in child.hear()
        assert child.hear() == 1


@needs_fork_server
def test_the_rest_of_a_function_is_refused(path: Path) -> None:
    """Nothing that the closure has written is kept."""
    with Child(a_function_reads_too_much, path) as child:
        assert child.hear() == "out of memory"
        assert LOST in child.hear()
        assert child.hear() == 0
