"""A primary and two replicas with a configurable lag."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import URL

from examples.local_postgresql import PostgreSQL, create_primary, create_replica
from sa_sqlite_pool import ServerDatabase

from ..report.output import console

REPLICAS = 2
_SECONDS_TO_CATCH_UP = 60.0
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True, slots=True)
class Servers:
    """A primary and its replicas."""

    primary: PostgreSQL
    replicas: tuple[PostgreSQL, ...]

    def set_lag(self, lag_ms: int) -> None:
        """Delay commits on the replicas by ``lag_ms``; wait until earlier commits are visible."""
        for replica in self.replicas:
            replica.set(recovery_min_apply_delay=f"{lag_ms}ms")
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the replicas have everything that the primary has."""
        wanted = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        end = time.monotonic() + _SECONDS_TO_CATCH_UP
        for replica in self.replicas:
            while replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{wanted}'") != "t":
                if time.monotonic() > end:
                    raise TimeoutError(f"{replica!r} does not catch up")
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def database(self, driver: str, **options: Any) -> ServerDatabase:
        """Return a facade over these servers."""
        return ServerDatabase(
            self.primary.url(driver), replicas=_urls(self.replicas, driver), **options
        )


def _urls(servers: tuple[PostgreSQL, ...], driver: str) -> list[URL]:
    return [server.url(driver) for server in servers]


@contextmanager
def running() -> Iterator[Servers]:
    """Start the servers in a folder of their own, and remove everything at the end."""
    with TemporaryDirectory(prefix="benchmarks-") as directory, ExitStack() as started:
        folder = Path(directory)
        folder.chmod(0o711)  # as root, servers run as another user
        primary = create_primary(folder / "primary")
        started.callback(primary.remove)
        replicas = []
        for number in range(REPLICAS):
            replicas.append(create_replica(primary, folder / f"replica{number + 1}"))
            started.callback(replicas[-1].remove)
            # Under a continuous load, a lagging replica never catches up, and cancels reads at once
            # in favour of replay: its grace period of 30 s expired long ago. The feedback comes
            # from connections that are already open.
            replicas[-1].set(hot_standby_feedback="on", max_standby_streaming_delay="-1")
        servers = Servers(primary, tuple(replicas))
        try:
            yield servers
        except Exception:  # the logs are removed with the servers
            for server in (primary, *replicas):
                console().print(f"{server!r} says:", server.log[-2000:], sep="\n", markup=False)
            raise
