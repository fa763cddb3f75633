"""The thread at the socket: clients that read nothing, many clients, and the size of documents."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.publishing import addresses, asking, documents, peers, server
from sa_sqlite_pool.publishing.server import Server
from tests.publishing.looking import ask, ask_beside, published, sockets

LARGE = b'{"version": 1, "statistics": "' + b"x" * 900_000 + b'"}\n'  # more than a socket buffers
Start = Callable[[bytes], Server]


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def start_one(reply: bytes) -> Server:
        found = Server(str(path), lambda: reply)
        found.start()
        started.append(found)
        while not ask(path):
            pass
        return found

    yield start_one
    for one in started:
        one.stop()
        one.join(30)
    assert sockets(path) == []


def document(**more: object) -> bytes:
    return json.dumps({"version": 1, "pid": os.getpid(), **more}).encode() + b"\n"


def test_a_client_that_reads_nothing_is_given_up(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next client is answered, after a moment, and completely."""
    monkeypatch.setattr(server, "_SEND_SECONDS", 0.05)
    one = start(LARGE)
    with addresses.connect(one.path, 5.0):
        (answer,) = ask(path)
    assert answer.document is not None
    assert len(answer.document["statistics"]) == 900_000


def test_a_client_that_reads_nothing_does_not_keep_it_from_ending(start: Start) -> None:
    """The wait for that client does not have to end first, either."""
    one = start(LARGE)
    with addresses.connect(one.path, 5.0) as client:
        client.recv(1)  # it is being answered
        since = time.monotonic()
        one.stop()
        one.join(30)
        assert time.monotonic() - since < server._SEND_SECONDS


def test_clients_that_hang_up_are_no_error(path: Path, start: Start) -> None:
    """They may hang up before their answer, or in the middle of it."""
    one = start(LARGE)
    for read in (0, 0, 1, 1):
        with addresses.connect(one.path, 5.0) as client:
            client.recv(read)
    assert len(ask(path)) == 1


def test_another_user_gets_nothing(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even where the mode of a socket is ignored; root does get an answer."""
    one = start(document())
    monkeypatch.setattr(peers.Peer, "may_ask", property(lambda peer: False))
    with addresses.connect(one.path, 5.0) as client:
        assert client.recv(1) == b""
    assert peers.Peer(1, 4242).uid == 4242


def test_this_user_and_root_may_ask() -> None:
    """No other user may query."""
    me = os.geteuid()
    assert [peers.Peer(1, uid).may_ask for uid in (me, 0, me + 1)] == [True, True, False]


def test_it_stops_before_it_has_started(path: Path) -> None:
    """This includes a thread that has not reached the socket yet, or that has ended already."""
    one = Server(str(path), document)
    one.stop()
    one.start()
    one.join(30)
    one.stop()
    assert sockets(path) == []


def test_nothing_runs_while_nothing_asks(path: Path, start: Start) -> None:
    """The thread sleeps in poll(), and uses no processor time."""
    one = start(document())
    assert one._thread.native_id is not None
    times = Path(f"/proc/self/task/{one._thread.native_id}/schedstat")
    if not times.exists():
        pytest.skip("needs /proc")
    before = ""
    for _ in range(100):  # until it has begun to wait
        if before == (before := times.read_text()):
            break
        threading.Event().wait(0.05)
    threading.Event().wait(0.2)
    assert times.read_text() == before


# -- documents ---------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)


def test_a_document_is_one_line_of_json() -> None:
    """It has the keys that docs/status.md promises."""
    encoded = documents.encode(SINCE, {"name": "böse\n.db"})
    assert encoded.endswith(b"\n")
    assert encoded.count(b"\n") == 1
    found = documents.decode(encoded)
    assert list(found) == ["version", "pid", "process", "since", "error", "statistics"]
    assert found["since"] == "2026-01-31T09:30:00+00:00"
    assert found["statistics"] == {"name": "böse\n.db"}


def test_a_document_is_bounded() -> None:
    """Statistics that are too large are left out, and the document says so."""
    found = documents.decode(documents.encode(SINCE, {"name": "x" * documents.MOST_BYTES}))
    assert found["statistics"] is None
    assert found["error"].startswith("the statistics are too large: ")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "its response cannot be read: Expecting value"),
        (b"[]\n", "its response cannot be read: not a statistics document"),
        (b'{"version": 2}\n', "its response cannot be read: version 2 of another release"),
        (b"\xff\n", "its response cannot be read: 'utf-8' codec"),
        (b"x" * (documents.MOST_BYTES + 10), "its response cannot be read: Expecting value"),
        (document(error="DatabaseClosedError: …"), "DatabaseClosedError: …"),
    ],
    ids=["http", "list", "version", "bytes", "size", "closed"],
)
def test_what_is_no_document_is_an_error(
    path: Path, start: Start, reply: bytes, error: str
) -> None:
    """It raises no exception, whatever program listens there."""
    start(reply)
    (answer,) = ask(path)
    assert answer.error is not None
    assert answer.error.startswith(error)
    assert answer.statistics is None


def test_an_answer_that_does_not_end_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out applies to the whole answer, not to each piece."""
    monkeypatch.setattr(asking, "_CHUNK_BYTES", 1)
    found = f"{path}-status-{os.getpid()}-0123ab"
    ours, stop = socket.socket(socket.AF_UNIX), threading.Event()

    def drip() -> None:
        client, _ = ours.accept()
        with client, suppress(BrokenPipeError):  # the client may give up first
            while not stop.wait(0.01):
                client.send(b" ")

    with ours:
        addresses.bind(ours, found)
        ours.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        (answer,) = ask(path, 0.2)
        stop.set()
        thread.join()
    assert answer.error == "does not respond within 0.2 s"


class Failing:
    """A listening socket that fails once, and then restores the original one."""

    def __init__(self, of: server.Server) -> None:
        assert of._listener is not None
        self._of, self._listener = of, of._listener
        self.failed = False

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> None:
        self._of._listener, self.failed = self._listener, True
        raise OSError(24, "Too many open files")


@pytest.fixture
def high_pipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let pipes have descriptors above 1,023, as in a process with that many open files."""
    resource = pytest.importorskip("resource")
    fcntl = pytest.importorskip("fcntl")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2048
    if limits[1] != resource.RLIM_INFINITY and limits[1] < wanted:
        pytest.skip(f"the system gives a process {limits[1]} descriptors")
    pipe = os.pipe

    def high_pipe() -> tuple[int, int]:
        ends = pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 1100) for end in ends]
        for end in ends:
            os.close(end)
        return high[0], high[1]

    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limits[1]))
    monkeypatch.setattr(os, "pipe", high_pipe)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def accept_fails_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PAUSE_SECONDS", 0.01)
    async with SQLiteDatabase(path) as db:
        await published(path)
        assert db._publisher is not None
        found = db._publisher._server
        assert found is not None
        failing = Failing(found)
        found._listener = failing  # type: ignore[assignment]
        await ask_beside(path)  # the thread polls the old one until the next client
        (answer,) = await ask_beside(path)
        assert failing.failed
        assert answer.statistics is not None


async def test_many_open_files_do_not_stop_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept() fails while there are too many; the connection is answered afterwards."""
    await accept_fails_once(path, monkeypatch)


@pytest.mark.usefixtures("high_pipes")
async def test_more_files_than_select_takes_do_not_stop_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with a thousand open files is likely to reach its limit of them."""
    await accept_fails_once(path, monkeypatch)


def test_a_system_without_threads_to_spare(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes are queried nevertheless, one after the other."""
    for _ in range(3):
        start(document())

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [answer.pid for answer in ask(path)] == [os.getpid()] * 3
