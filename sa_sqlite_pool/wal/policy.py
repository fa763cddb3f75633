"""The policy for the log: a pure function that decides which action to take, and when."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..files.log_file import LogSize
from ..settings import WalSettings


class Action(enum.Enum):
    """An action to keep the log small, in order of how much it affects other tasks."""

    NOTHING = enum.auto()
    WAIT = enum.auto()
    """Check again when there is no writer."""
    TIDY = enum.auto()
    """There is no writer: move everything and, if there is no reader either, truncate the file."""
    MOVE = enum.auto()
    """Wait in line for the turn and move as much as possible."""
    GAP = enum.auto()
    """Make new readers wait until running ones have ended, then acquire the turn and truncate."""


class Situation(NamedTuple):
    """The state of a log, as far as it is known.

    ``idle`` is True if there was no commit for a moment and no writer waits. ``checked_at`` is the
    number of bytes in use at the last checkpoint of this log; 0 if the log has restarted since.
    ``pinned`` is True if a reader of an old state will not end soon, so a gap would be in vain.
    """

    log: LogSize
    idle: bool = False
    checked_at: int = 0
    pinned: bool = False


def decide(situation: Situation, settings: WalSettings) -> Action:
    """Return the action to take now."""
    log, soft, hard = situation.log, settings.soft_limit, settings.hard_limit
    if soft is None or log.size < soft:
        return Action.NOTHING
    gap_helps = settings.reader_gap > 0 and not situation.pinned
    if hard is not None and log.used >= hard and gap_helps:
        return Action.GAP
    if situation.idle:
        return Action.TIDY
    # Half the hard limit leaves room for a checkpoint that is held back. Less frequent checkpoints
    # cost less, because a page that was written many times is moved only once.
    large = max(soft, 2 * soft if hard is None else hard // 2)
    if log.used >= large and not just_checked(situation, settings):
        return Action.MOVE
    return Action.WAIT


def too_large(log: LogSize, settings: WalSettings) -> bool:
    """Return whether writers have to wait, too, until the running readers have ended."""
    hard = settings.hard_limit
    return hard is not None and log.used >= hard + hard * 3 // 4


def just_checked(situation: Situation, settings: WalSettings) -> bool:
    """Return whether little has been written since the last checkpoint of this log."""
    step = (settings.soft_limit or 0) // 2
    return 0 < situation.checked_at <= situation.log.used < situation.checked_at + step
