"""The policy for the log: a pure function, which decides what is done and when."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..files.log_file import LogSize
from ..settings import WalSettings


class Action(enum.Enum):
    """What to do about the log, from the least to the most that it asks of other tasks."""

    NOTHING = enum.auto()
    WAIT = enum.auto()
    """Look again when there is no writer."""
    TIDY = enum.auto()
    """There is no writer: move everything and truncate the file, if there is no reader either."""
    MOVE = enum.auto()
    """Wait in line for the turn and move what can be moved."""
    GAP = enum.auto()
    """Let new readers wait while the running ones end, then take a turn and truncate."""


class Situation(NamedTuple):
    """What is known about a log.

    ``idle`` is True if there was no commit for a moment and no writer waits. ``checked_at`` is the
    number of bytes in use at the last checkpoint of this log; 0 if it has begun anew since.
    ``pinned`` is True if a reader of an old state will not end soon: a gap would be in vain.
    """

    log: LogSize
    idle: bool = False
    checked_at: int = 0
    pinned: bool = False


def decide(situation: Situation, settings: WalSettings) -> Action:
    """Return what to do now."""
    log, soft, hard = situation.log, settings.soft_limit, settings.hard_limit
    if soft is None or log.size < soft:
        return Action.NOTHING
    gap_helps = settings.reader_gap > 0 and not situation.pinned
    if hard is not None and log.used >= hard and gap_helps:
        return Action.GAP
    if situation.idle:
        return Action.TIDY
    # Half the hard limit leaves room for a checkpoint that is held back. Rarer checkpoints cost
    # less: a page that was written many times is moved once.
    large = max(soft, 2 * soft if hard is None else hard // 2)
    if log.used >= large and not just_checked(situation, settings):
        return Action.MOVE
    return Action.WAIT


def too_large(log: LogSize, settings: WalSettings) -> bool:
    """Return whether writers have to wait, too, while running readers end."""
    hard = settings.hard_limit
    return hard is not None and log.used >= hard + hard * 3 // 4


def just_checked(situation: Situation, settings: WalSettings) -> bool:
    """Return whether little has been written since the last checkpoint of this log."""
    step = (settings.soft_limit or 0) // 2
    return 0 < situation.checked_at <= situation.log.used < situation.checked_at + step
