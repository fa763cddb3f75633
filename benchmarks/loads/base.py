"""What a load consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from ..contenders import Contender


@dataclass(frozen=True, slots=True)
class Load:
    """The same work for several contenders.

    :param unit: what is counted a second
    :param tasks: how many tasks do it at once
    :param operations: how many there are in one run; each gets a key from 1 to ``rows``
    :param fill: creates and fills the tables, once
    :param contenders: the first is what the others are compared with
    :param effects: how many operations have left their mark in the file; None where they leave
        none
    """

    name: str
    title: str
    unit: str
    tasks: int
    operations: int
    rows: int
    fill: Callable[[Connection], None]
    contenders: tuple[Contender, ...]
    effects: Callable[[Path], int] | None = None
