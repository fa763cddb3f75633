"""Errors of a closure whose transaction SQLite has rolled back by itself."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import TransactionLostError


def comes_from(error: BaseException, loss: BaseException | None) -> bool:
    """Return whether ``error`` reports ``loss``, the error that ended the transaction.

    It may be the same error, as SQLAlchemy raises it, or one that the application made of it. The
    error of a later statement, which was refused, or of no statement, does not report it.
    """
    for link in _chain(error):
        original = getattr(link, "orig", None)
        if loss is not None and (link is loss or original is loss):
            return True
        if isinstance(original, TransactionLostError):
            return link is error
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, and the errors that it was raised from or while handling."""
    seen = set[int]()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
