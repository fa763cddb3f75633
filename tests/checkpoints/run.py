"""The processes, their ends, and the result."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.cancellations.oracle import Fate
from tests.commands import OnProgress
from tests.helpers import files_beside

from .children import Child, GiveUp
from .journal import read_journals
from .log_watch import LogWatch
from .oracle import check_file, create_tables

_LOOK_SECONDS = 0.01  # between two looks at the log, whose growth raises no event
_LIFE_SECONDS = (0.8, 3.0)  # between two ends of processes
_SECONDS_TO_END = 60  # more than a process's time-outs, whose errors say what it waits for


@dataclass(frozen=True)
class Result:
    """The work, and its outcome.

    ``resets`` is the number of restarts of the log, ``largest_log`` its maximum size in bytes.
    ``replaced`` processes were told to end; ``killed`` ones were not, and their counts of
    checkpoints are lost. ``windows`` were held open for others; see window.py.
    """

    seed: int
    seconds: float
    processes: int
    replaced: int
    killed: int
    resets: int
    windows: int
    largest_log: int
    acknowledged: int
    rolled_back: int
    unknown: int
    checkpoints: Mapping[str, int]


def run(
    directory: Path,
    *,
    seconds: float,
    processes: int,
    seed: int,
    on_progress: OnProgress = lambda _: None,
) -> Result:
    """Let processes work on a new file in ``directory`` for a number of seconds.

    Raise ``AssertionError`` with the seed for anything that is lost, left behind, late or wrong.
    """
    campaign = Campaign(directory, processes, seed, on_progress)
    give_up = GiveUp(seconds + _SECONDS_TO_END, campaign.children)
    try:
        return campaign.run(seconds)
    except Exception as error:
        late = f" after {seconds + _SECONDS_TO_END:g} s" if give_up.happened else ""
        raise AssertionError(f"seed {seed}{late}: {type(error).__name__}: {error}") from error
    finally:
        give_up.cancel()
        campaign.kill_all()


class Campaign:
    """One run: its processes, and the files that they leave."""

    def __init__(self, directory: Path, processes: int, seed: int, on_progress: OnProgress) -> None:
        self._directory = directory
        self._path = directory / "checkpoints.db"
        self._processes = processes
        self._seed = seed
        self._rng = Random(seed)
        self._on_progress = on_progress
        self._names = itertools.count(1)
        self._journals: list[Path] = []
        self._watch = LogWatch(self._path)
        self._counts: Counter[str] = Counter()
        self._replaced = 0
        self._killed = 0
        self.children: list[Child] = []

    def run(self, seconds: float) -> Result:
        create_tables(self._path)
        for _ in range(self._processes):
            self._start()
        for child in self.children:
            child.until_ready()
        started = time.monotonic()
        self._let_work(started + seconds)
        worked = time.monotonic() - started
        self._end_all()
        return self._check(worked)

    def kill_all(self) -> None:
        while self.children:
            self.children.pop().kill()

    # -- the processes --------------------------------------------------------------------------

    def _start(self) -> None:
        name = f"p{next(self._names)}"
        journal = self._directory / f"{name}.journal"
        journal.touch()  # the process may be killed before it creates the file
        self._journals.append(journal)
        self.children.append(Child(self._path, journal, f"{self._seed} {name}"))

    def _let_work(self, until: float) -> None:
        """Let them work; at intervals, one ends or is killed, and another one replaces it."""
        next_end = self._next_end()
        while (now := time.monotonic()) < until:
            self._watch.look()
            for child in self.children:
                child.check()
            if now >= next_end:
                self._replace_one()
                next_end = self._next_end()
            time.sleep(_LOOK_SECONDS)  # the duration of a campaign, not a wait for anything
            self._on_progress(time.monotonic() - now)

    def _next_end(self) -> float:
        return time.monotonic() + self._rng.uniform(*_LIFE_SECONDS)

    def _replace_one(self) -> None:
        child = self._rng.choice(self.children)
        if self._rng.random() < 0.5:
            child.kill()
            self.children.remove(child)
            self._killed += 1
        else:
            self._end(child)
            self._replaced += 1
        self._start()

    def _end(self, child: Child) -> None:
        self._counts.update(child.end())
        self.children.remove(child)

    def _end_all(self) -> None:
        """End them one after the other: if two close at the same moment, neither is the last.

        SQLite removes the log when a connection that closes is the only one.
        """
        while self.children:
            self._end(self.children[0])

    # -- the files that they leave --------------------------------------------------------------

    def _check(self, seconds: float) -> Result:
        left = files_beside(self._path) & {f"{self._path.name}-{end}" for end in ("wal", "shm")}
        assert not left, f"left when all were closed: {', '.join(left)}"
        entries = read_journals(self._journals)
        check_file(self._path, entries)
        fates = Counter(entry.fate for entry in entries)
        return Result(
            seed=self._seed,
            seconds=round(seconds, 2),
            processes=self._processes,
            replaced=self._replaced,
            killed=self._killed,
            resets=self._watch.resets,
            windows=self._counts.pop("windows", 0),
            largest_log=self._watch.largest,
            acknowledged=fates[Fate.ACKNOWLEDGED],
            rolled_back=fates[Fate.ROLLED_BACK],
            unknown=fates[Fate.UNKNOWN],
            checkpoints=dict(sorted(self._counts.items())),
        )
