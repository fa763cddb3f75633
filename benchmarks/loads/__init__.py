"""The loads by name. A further load is one more module and one more line here."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Load
from .one_row_writes import ONE_ROW_WRITES
from .point_reads import POINT_READS

LOADS: Mapping[str, Load] = {load.name: load for load in (POINT_READS, ONE_ROW_WRITES)}
