"""A PostgreSQL server: started, stopped, killed, frozen, and promoted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from .software import programs, server_user

DATABASE = "postgres"
USER = "postgres"
_HOST = "127.0.0.1"
_SECONDS_TO_START = 30.0
_SECONDS_BETWEEN_LOOKS = 0.02

# For data that nobody will miss: nothing waits for a disk, and little memory is taken.
_SETTINGS: Mapping[str, object] = {
    "listen_addresses": _HOST,
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": 60,
    "max_wal_senders": 8,
    "wal_level": "replica",
    "hot_standby": "on",
    "hot_standby_feedback": "off",
    "wal_receiver_status_interval": "100ms",
    "wal_retrieve_retry_interval": "100ms",
    "log_min_messages": "warning",
}


class PostgreSQLError(RuntimeError):
    """A program of PostgreSQL failed; the message has what it said."""


class PostgreSQL:
    """A server with a data directory and a port of its own.

    Use :func:`create_primary` or :func:`create_replica` to make one. ``directory`` holds the data,
    the log ``server.log``, and the socket.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<PostgreSQL {self.directory.name} on port {self.port}, {state}>"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        return (self.directory / "server.log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._process is not None and self._process.poll() is None

    def url(self, driver: str = "asyncpg", database: str = DATABASE, **query: str) -> URL:
        """Return the URL for ``create_async_engine``; ``driver`` is ``asyncpg`` or ``psycopg``."""
        return URL.create(f"postgresql+{driver}", USER, None, _HOST, self.port, database, query)

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> PostgreSQL:
        """Start the server, and wait until it accepts connections."""
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(self.directory, "postgres"), "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_as_server_user(),
            )
        try:
            self._wait_until_it_accepts()
        except BaseException:  # Ctrl-C, too: the caller has no server to stop yet
            self.kill()
            raise
        return self

    def _wait_until_it_accepts(self) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while not self.accepts():
            if not self.running or time.monotonic() > end:
                raise PostgreSQLError(f"{self!r} did not start: {self.log[-2000:]}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def accepts(self) -> bool:
        """Return whether the server accepts connections."""
        program = str(_program(self.directory, "pg_isready"))
        command = [program, "-q", "-h", _HOST, "-p", str(self.port)]
        return subprocess.run(command, check=False, timeout=_SECONDS_TO_START).returncode == 0

    def stop(self) -> None:
        """Stop the server in order: it disconnects the clients, and writes its memory out."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop the server at once, as a crash would: it recovers from the log at its next start."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self.thaw()
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(_SECONDS_TO_START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stop all processes of the server where they are; the system still accepts for them."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, what: signal.Signals) -> None:
        # The postmaster first, so that it starts no more.
        process = self._process
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with suppress(OSError):
            os.kill(process.pid, what)
            for child in children.read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(child), what)

    def promote(self) -> None:
        """Make a replica the primary, and wait until it is."""
        self.run("pg_ctl", "promote", "-w", "-D", self.data)

    # -- SQL and settings -----------------------------------------------------------------------

    def run(self, program: str, *arguments: object) -> str:
        """Run a program of PostgreSQL as the user of the server; return what it printed."""
        return _run(self.directory, program, *arguments)

    def sql(self, sql: str, database: str = DATABASE) -> str:
        """Execute SQL in a connection of its own; return the values, rows in lines."""
        return self.run(
            *("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
            *("-h", _HOST, "-p", self.port, "-U", USER, "-d", database, "-c", sql),
        ).strip()

    def set(self, **settings: object) -> None:
        """Change settings that need no restart, and let the server read them."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")

    def remove(self) -> None:
        """Stop the server at once, and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def create_primary(directory: Path, **settings: object) -> PostgreSQL:
    """Create and start a server in a new ``directory``; ``settings`` are PostgreSQL's."""
    server = PostgreSQL(_prepared(directory), free_port())
    options = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", f"--username={USER}")
    _run(directory, "initdb", "-D", server.data, *options)
    _configure(server, {**_SETTINGS, **settings})
    return server.start()


def create_replica(
    primary: PostgreSQL, directory: Path, *, delay_ms: int = 0, **settings: object
) -> PostgreSQL:
    """Create and start a replica of ``primary`` in a new ``directory``.

    :param delay_ms: milliseconds after which it shows what the primary has committed
    """
    replica = PostgreSQL(_prepared(directory), free_port())
    source = ("-h", _HOST, "-p", primary.port, "-U", USER)
    options = ("--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
    _run(directory, "pg_basebackup", "-D", replica.data, *source, *options)
    _configure(replica, {**settings, "recovery_min_apply_delay": f"{delay_ms}ms"})
    return replica.start()


def _configure(server: PostgreSQL, settings: Mapping[str, object]) -> None:
    own = {"port": server.port, "unix_socket_directories": str(server.directory)}
    lines = [f"{name} = '{value}'" for name, value in {**settings, **own}.items()]
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("\n".join(["", *lines, ""]))


def _prepared(directory: Path) -> Path:
    directory.mkdir(parents=True, mode=0o755)
    if (user := server_user()) is not None:
        os.chown(directory, user.uid, user.gid)
    return directory


def free_port() -> int:
    """Return the number of a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _program(directory: Path, name: str) -> Path:
    return programs(directory.parent / "programs") / name


def _as_server_user() -> dict[str, Any]:
    if (user := server_user()) is None:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


def _run(directory: Path, program: str, *arguments: object) -> str:
    done = subprocess.run(
        [_program(directory, program), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        **_as_server_user(),
    )
    if done.returncode != 0:
        raise PostgreSQLError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)
