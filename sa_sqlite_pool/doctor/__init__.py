"""The diagnosis of a database, with a repair for each finding: ``examine("app.db")``."""

from .examining import examine
from .findings import Figures, Finding, HeldLock, Report, Severity

__all__ = ["Figures", "Finding", "HeldLock", "Report", "Severity", "examine"]
