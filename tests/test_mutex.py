"""Locks are released when a signal handler raises, at the earliest possible moment."""

from __future__ import annotations

import ast
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from sa_sqlite_pool.mutex import GivenBack, new_lock, new_rlock
from tests.test_floors import MODULES

# Flags that are set once, by an acquire() that does not wait, and never released by ``with``.
FLAGS = {"turn.file_requests"}


class Interrupt(BaseException):
    pass


@pytest.fixture
def lock() -> Iterator[threading.Lock]:
    """Provide a lock, while Ctrl-C raises :class:`Interrupt`."""

    def handler(_signal: int, _frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGINT, handler)
    yield threading.Lock()
    signal.signal(signal.SIGINT, before)


def pressed_when_taken(lock: threading.Lock) -> Callable[[], object]:
    """Return a function that acquires ``lock``, during which Ctrl-C is pressed.

    It consists of C functions, like ``lock.acquire``: the handler runs at the next check.
    """
    press = partial(ctypes.pythonapi.PyErr_SetInterruptEx, int(signal.SIGINT))
    return partial(next, zip(iter(lock.acquire, None), iter(press, None), strict=True))


@pytest.mark.skipif(sys.version_info[:2] == (3, 14), reason="the interpreter does not")
def test_the_interpreter_gives_it_back(lock: threading.Lock) -> None:
    """Therefore a plain lock suffices."""
    methods: dict[str, Any] = {"__enter__": pressed_when_taken(lock), "__exit__": lock.__exit__}
    plain: Any = type("Plain", (), {name: staticmethod(one) for name, one in methods.items()})()
    with pytest.raises(Interrupt):  # noqa: SIM117
        with plain:
            pass
    assert not lock.locked()
    assert isinstance(new_lock(), type(lock))


def test_ours_is_given_back(lock: threading.Lock) -> None:
    taken = pressed_when_taken(lock)
    ours = GivenBack(
        SimpleNamespace(acquire=taken, release=None, locked=None, __exit__=lock.__exit__)
    )
    with pytest.raises(Interrupt):  # noqa: SIM117
        with ours:
            pass
    assert not lock.locked()


def test_a_handler_raises_while_it_waits(lock: threading.Lock) -> None:
    """It is not acquired then, and the next ``with`` acquires it, whatever was raised."""
    errors: list[type[BaseException]] = [StopIteration, Interrupt]

    def acquire() -> bool:
        if errors:
            raise errors.pop()
        return lock.acquire()

    ours = GivenBack(
        SimpleNamespace(acquire=acquire, release=None, locked=None, __exit__=lock.__exit__)
    )
    with pytest.raises(Interrupt):  # noqa: SIM117
        with ours:
            pass
    assert not lock.locked()
    with ours:
        assert lock.locked()
    assert not lock.locked()


@pytest.mark.parametrize(
    "kind",
    [new_lock, new_rlock, lambda: GivenBack(threading.Lock()), lambda: GivenBack(_rlock())],
)
def test_it_is_a_lock(kind: Callable[[], Any]) -> None:
    """Other threads find it acquired within the block, and free after it, even after an error."""
    lock = kind()
    free: list[bool] = []

    def try_it() -> None:
        free.append(lock.acquire(blocking=False))
        if free[-1]:
            lock.release()

    def try_in_thread() -> bool:
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        return free[-1]

    with lock as taken:
        assert taken is True
        assert not try_in_thread()
    assert try_in_thread()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert try_in_thread()


def test_no_other_lock_is_used() -> None:
    found = {name for name, tree in MODULES.items() if any(map(_makes_lock, ast.walk(tree)))}
    assert found == {"mutex"} | FLAGS


def _rlock() -> Any:
    lock = threading.RLock()
    # RLock.locked() exists since Python 3.14, where it is needed.
    return SimpleNamespace(
        acquire=lock.acquire, release=lock.release, locked=None, __exit__=lock.__exit__
    )


def _makes_lock(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(ast.Name("threading"), "Lock" | "RLock"):
            return True
        case ast.ImportFrom(module="threading"):
            return any(alias.name in {"Lock", "RLock"} for alias in node.names)
    return False
