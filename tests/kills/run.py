"""The processes, their ends, and the result."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from random import Random

from tests.cancellations.oracle import Fate
from tests.checkpoints.oracle import check_file, create_tables
from tests.children import Child
from tests.commands import OnProgress

from . import process
from .figures import Life, longest_silence, longest_transaction, longest_wait, start_to_commit

DOORS = ("facade", "swap-in", "pools")
BETWEEN_KILLS = 0.2
STALL_SECONDS = 1.0
"""The limit for times without commits, and for a transaction, whichever process is killed."""


@dataclass(frozen=True)
class Result:
    """The work, and its outcome.

    ``killed_holding`` processes held the turn when they were killed, ``killed_waiting`` ones had
    tasks in line, ``killed_starting`` ones had not been told to work yet. Waits and transactions
    are measured from the request for the turn, if necessary until the kill. ``start_to_commit_ms``,
    median and longest, is the time that a process took to work in the place of a killed one.
    """

    seed: int
    seconds: float
    processes: int
    killed: int
    killed_holding: int
    killed_waiting: int
    killed_starting: int
    acknowledged: int
    rolled_back: int
    unknown: int
    longest_silence_ms: int
    longest_wait_ms: int
    longest_transaction_ms: int
    start_to_commit_ms: tuple[int, int]

    @property
    def stalls(self) -> list[str]:
        """Everything that took too long."""
        limit = STALL_SECONDS * 1000
        times = {
            "nobody committed for": self.longest_silence_ms,
            "a transaction took": self.longest_transaction_ms,
        }
        return [f"{what} {ms} ms" for what, ms in times.items() if ms >= limit]


def run(
    directory: Path,
    *,
    seconds: float,
    processes: int,
    seed: int,
    on_progress: OnProgress = lambda _: None,
) -> Result:
    """Let processes write to a new file in ``directory`` for a number of seconds, and kill them.

    Raise ``AssertionError`` with the seed for anything that is lost, left behind, late or wrong.
    """
    campaign = Campaign(directory, processes, seed, on_progress)
    try:
        return campaign.run(seconds)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        campaign.kill_all()


class Running:
    """A process, and its state as known here."""

    def __init__(self, child: Child, diary: Path) -> None:
        self.child = child
        self.diary = diary
        self._began: float | None = None

    def begin(self) -> None:
        """Make it work as soon as it is ready, unless it already does."""
        if self._began is None:
            self._began = time.monotonic()
            self.child.tell("work")

    def life(self, killed: float | None = None) -> Life:
        return Life.read(self.diary, self._began, killed)

    def complaints(self) -> str:
        log = process.complaints(self.diary)
        return log.read_text() if log.exists() else ""


class Campaign:
    """One run: its processes, and the files that they leave.

    The last of the running processes is a spare, which replaces the next one that is killed; it has
    opened the file by then.
    """

    def __init__(self, directory: Path, processes: int, seed: int, on_progress: OnProgress) -> None:
        self._directory = directory
        self._path = directory / "kills.db"
        self._processes = processes
        self._seed = seed
        self._rng = Random(seed)
        self._on_progress = on_progress
        self._numbers = itertools.count(1)
        self._running: list[Running] = []
        self._lives: list[Life] = []

    def run(self, seconds: float) -> Result:
        create_tables(self._path)
        for _ in range(self._processes + 1):
            self._start()
        for running in self._running:
            assert running.child.hear() == "ready"
        for running in self._running[:-1]:
            running.begin()
        since = time.monotonic()
        self._kill_until(since + seconds)
        until = time.monotonic()
        self._end_all()
        return self._result(since, until)

    def kill_all(self) -> None:
        for running in self._running:
            running.child.__exit__(None, None, None)

    # -- the processes --------------------------------------------------------------------------

    def _start(self) -> None:
        number = next(self._numbers)
        diary = self._directory / f"p{number}.diary"
        diary.touch()  # the process may be killed before it creates the file
        door = DOORS[number % len(DOORS)]
        seed = f"{self._seed} p{number}"
        child = Child(process.main, door, self._path, diary, seed)
        self._running.append(Running(child, diary))

    def _kill_until(self, end: float) -> None:
        next_kill = time.monotonic() + BETWEEN_KILLS
        while (now := time.monotonic()) < end:
            if now >= next_kill:
                self._replace(self._rng.choice(self._running))
                next_kill += BETWEEN_KILLS
            sentinels = [running.child.sentinel for running in self._running]
            wait(sentinels, min(next_kill, end) - time.monotonic())
            for running in self._running:
                if not running.child.alive:
                    running.child.hear()  # raises its failure
            self._on_progress(time.monotonic() - now)

    def _replace(self, running: Running) -> None:
        killed = time.monotonic()
        running.child.kill()
        is_spare = running is self._running[-1]
        self._bury(running, killed)
        if not is_spare:
            self._running[-1].begin()
        self._start()

    def _end_all(self) -> None:
        while self._running:
            running = self._running[0]
            running.begin()  # the spare one
            running.child.tell("stop")
            while running.child.hear() != "closed":  # it may have sent ready before
                pass
            self._bury(running)

    def _bury(self, running: Running, killed: float | None = None) -> None:
        self._running.remove(running)
        running.child.__exit__(None, None, None)
        self._lives.append(running.life(killed))
        complaints = running.complaints()
        assert not complaints, f"{running.diary.stem} had to say:\n{complaints}"

    # -- the files that they leave --------------------------------------------------------------

    def _result(self, since: float, until: float) -> Result:
        entries = [story.entry for life in self._lives for story in life.stories]
        check_file(self._path, entries)
        fates = Counter(entry.fate for entry in entries)
        median, longest = start_to_commit(self._lives)
        return Result(
            seed=self._seed,
            seconds=round(until - since, 2),
            processes=self._processes,
            killed=sum(life.killed is not None for life in self._lives),
            killed_holding=sum(life.killed_holding for life in self._lives),
            killed_waiting=sum(life.killed_waiting for life in self._lives),
            killed_starting=sum(life.killed is not None and not life.began for life in self._lives),
            acknowledged=fates[Fate.ACKNOWLEDGED],
            rolled_back=fates[Fate.ROLLED_BACK],
            unknown=fates[Fate.UNKNOWN],
            longest_silence_ms=_ms(longest_silence(self._lives, since, until)),
            longest_wait_ms=_ms(longest_wait(self._lives)),
            longest_transaction_ms=_ms(longest_transaction(self._lives)),
            start_to_commit_ms=(_ms(median), _ms(longest)),
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
