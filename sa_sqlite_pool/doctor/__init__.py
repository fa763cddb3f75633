"""What is wrong with a database, and what mends it: ``examine("app.db")``."""

from .examining import examine
from .findings import Figures, Finding, HeldLock, Report, Severity

__all__ = ["Figures", "Finding", "HeldLock", "Report", "Severity", "examine"]
