"""Errors of a function whose transaction SQLite has rolled back by itself."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import TransactionLostError


def comes_from(error: BaseException, loss: BaseException | None) -> bool:
    """Whether ``error`` tells of ``loss``, that of the statement which lost the transaction.

    It may be the same, as SQLAlchemy reports it, or what the application has made of it. What
    comes from a later statement, which was refused, or from none, does not tell of it.
    """
    for link in _chain(error):
        original = getattr(link, "orig", None)
        if loss is not None and (link is loss or original is loss):
            return True
        if isinstance(original, TransactionLostError):
            return link is error
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, and those that it was raised from or in the handling of."""
    seen = set[int]()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
