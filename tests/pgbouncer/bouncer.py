"""PgBouncer processes in front of the servers of these tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from examples.local_postgresql import PostgreSQL
from examples.local_postgresql.server import USER
from examples.local_postgresql.software import server_user
from tests.postgresql import free_port, wait_until

PROGRAM = "PGBOUNCER"
"""The environment variable with its path; otherwise, it is searched for on the system's path."""

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
admin_users = {user}
pool_mode = transaction
default_pool_size = {pool_size}
{prepared}
server_login_retry = 0.1
logfile = {directory}/pgbouncer.log
"""


def program() -> str | None:
    """Return the path of PgBouncer; None if it is not installed."""
    return os.environ.get(PROGRAM) or shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")


needs_pgbouncer = pytest.mark.skipif(
    program() is None, reason=f"pgbouncer is not installed, and {PROGRAM} is not its path"
)


def can_follow() -> bool:
    """Return whether this version of PgBouncer can track its clients' prepared statements."""
    found = program()
    assert found is not None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    numbers = re.search(r"(\d+)\.(\d+)", said)
    assert numbers is not None
    return tuple(map(int, numbers.groups())) >= (1, 21)


class PgBouncer:
    """PgBouncer in transaction mode in front of one server.

    :param follows: the number of prepared statements that it tracks on each server connection
    """

    def __init__(
        self, directory: Path, server: PostgreSQL, *, pool_size: int = 3, follows: int = 0
    ) -> None:
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)  # it refuses to run as root
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "users.txt").write_text(f'"{USER}" ""\n')
        (directory / "pgbouncer.ini").write_text(
            _SETTINGS.format(
                server=server,
                port=self.port,
                directory=directory,
                user=USER,
                pool_size=pool_size,
                prepared=f"max_prepared_statements = {follows}" if can_follow() else "",
            )
        )

    def start(self) -> PgBouncer:
        """Start it, and wait until it accepts connections."""
        found = program()
        assert found is not None
        self._process = subprocess.Popen(
            [found, "-q", self.directory / "pgbouncer.ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **_as_server_user(),
        )
        wait_until(self._accepts)
        return self

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        return bool(self.log) and "process up" in self.log

    @property
    def log(self) -> str:
        """Return the content of its log since its first start."""
        log = self.directory / "pgbouncer.log"
        return log.read_text() if log.exists() else ""

    def kill(self) -> None:
        """Kill it at once, which breaks all connections through it."""
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process.wait()
            self._process = None
            (self.directory / "pgbouncer.log").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Suspend the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def _as_server_user() -> dict[str, Any]:
    if (user := server_user()) is None:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}
