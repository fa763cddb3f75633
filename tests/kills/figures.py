"""Times without commits, the longest waits, and the processes hit by kills, from diaries."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .diary import Story, read_diary


@dataclass(frozen=True)
class Life:
    """A process according to its diary. It was told to work at ``began``; None if it never was.

    ``killed`` is the time of its kill; None if it ended by itself.
    """

    began: float | None
    killed: float | None
    stories: list[Story]

    @classmethod
    def read(cls, diary: Path, began: float | None, killed: float | None) -> Life:
        return cls(began, killed, read_diary(diary))

    @property
    def killed_holding(self) -> bool:
        """Whether one of its tasks held the turn when it was killed."""
        return self.killed is not None and any(
            story.held is not None and story.over is None for story in self.stories
        )

    @property
    def killed_waiting(self) -> bool:
        """Whether one of its tasks waited in line when it was killed."""
        return self.killed is not None and any(
            story.held is None and story.over is None for story in self.stories
        )

    @property
    def start(self) -> float | None:
        """The seconds from the order to work to its first commit; None if there was none."""
        if self.began is None:
            return None
        commits = [story.over for story in self.stories if story.committed and story.over]
        first = min((at for at in commits if at > self.began), default=None)
        return None if first is None else first - self.began

    @property
    def waits(self) -> list[float]:
        """The seconds from each request to the first statement, or to the end of the wait."""
        ends = [(story.asked, story.held or story.over or self.killed) for story in self.stories]
        return [end - asked for asked, end in ends if end is not None]

    @property
    def wholes(self) -> list[float]:
        """The seconds from each request to the end of the transaction."""
        ends = [(story.asked, story.over or self.killed) for story in self.stories]
        return [end - asked for asked, end in ends if end is not None]


def longest_silence(lives: Sequence[Life], since: float, until: float) -> float:
    """Return the longest time between ``since`` and ``until`` in which no process committed."""
    commits = sorted(
        story.over
        for life in lives
        for story in life.stories
        if story.committed and story.over is not None and since < story.over < until
    )
    return max(later - earlier for earlier, later in pairwise([since, *commits, until]))


def longest_transaction(lives: Sequence[Life]) -> float:
    """Return the longest time from a request to the end of its commit, or to the kill."""
    return max((seconds for life in lives for seconds in life.wholes), default=0.0)


def longest_wait(lives: Sequence[Life]) -> float:
    """Return the longest wait of a transaction for its turn, or until the kill."""
    return max((seconds for life in lives for seconds in life.waits), default=0.0)


def start_to_commit(lives: Sequence[Life]) -> tuple[float, float]:
    """Return the median and longest time from the order to work to the first commit."""
    took = [life.start for life in lives if life.start is not None]
    return (statistics.median(took), max(took)) if took else (0.0, 0.0)
