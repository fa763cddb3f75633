"""Decide whether a statement does more than read, for a reader that is a PostgreSQL replica.

A replica refuses most statements that write (SQLSTATE 25006). Those that it accepts are worse: an
advisory lock is acquired on the replica, where no other program checks it, and a setting applies to
a connection that the next write does not use. So this is a list of what acts; a function that is
not in it, and that the replica refuses, is then sent to the writer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from .functions import function_acts
from .tokens import Token, tokens

LONGEST_READ = 65_536
"""The longest text, in characters, that is searched for words; longer ones go to the writer."""

LONGEST_TOLD_APART = 8192
"""The longest text, in characters, in which words are told apart from strings and comments."""

_LONGEST_REMEMBERED = 4096

_NO_NAMES = frozenset({"other", "some", "string"})  # kinds of tokens
_MOST_WITHS = 64
_LONGEST_TARGET = 16  # tokens of UPDATE ONLY a.b.c * AS d SET

_READS = frozenset({"explain", "select", "show", "table", "values", "with"})
_DML = frozenset({"delete", "insert", "merge", "update"})
_VERBS = frozenset({"select", "table", "values"}) | _DML
_ANALYZE = frozenset({"analyse", "analyze"})

# A statement that begins like a read, and contains none of these words anywhere, is a read.
_WORDS_THAT_MAY_ACT = _DML | _ANALYZE | {"execute", "for", "into"}
_WORD = re.compile(r"[a-z_][a-z0-9_$]*")


def text_acts(sql: str) -> bool:
    """Return whether SQL text does more than read. The time is bounded, however long it is."""
    return _acts(sql, whole=True)


def fragment_acts(sql: str) -> bool:
    """Return whether a piece of SQL within a SELECT does more than read."""
    return _acts(sql, whole=False)


def _acts(sql: str, *, whole: bool) -> bool:
    if len(sql) <= _LONGEST_REMEMBERED:
        return _acts_short(sql, whole)
    return len(sql) > LONGEST_READ or _look(sql, whole)


@lru_cache(maxsize=4096)
def _acts_short(sql: str, whole: bool) -> bool:
    return _look(sql, whole)


def _look(sql: str, whole: bool) -> bool:
    if not _may_act(sql):
        return whole and _first_word(tokens(sql)) not in _READS
    if len(sql) > LONGEST_TOLD_APART:
        return True
    found = list(tokens(sql))
    return _statement_acts(found) if whole else _part_acts(found)


def _may_act(sql: str) -> bool:
    """Return whether words of ``sql`` may act, in strings or not. This is fast for most texts."""
    folded = sql.lower()
    if ";" in folded or "u&" in folded:
        return True
    words = set(_WORD.findall(folded))
    return not _WORDS_THAT_MAY_ACT.isdisjoint(words) or any(map(function_acts, words))


def _first_word(found: Iterable[Token]) -> str:
    first = next((token for token in found if token.text != "("), None)
    return first.text if first is not None and first.kind == "word" else ""


def _statement_acts(found: list[Token]) -> bool:
    while found and _is(found[-1], ";"):
        found.pop()
    first = _first_word(found)
    if first not in _READS or any(_is(token, ";") for token in found):
        return True
    return _explain_acts(found[1:]) if first == "explain" else _part_acts(found)


def _explain_acts(found: list[Token]) -> bool:
    """Return whether an EXPLAIN acts: if it runs its statement, it does what the statement does."""
    options: list[Token] = []
    if found and _is(found[0], "("):
        end = next((place for place, token in enumerate(found) if _is(token, ")")), len(found))
        options, found = found[:end], found[end + 1 :]
    while found and found[0].text in _ANALYZE | {"verbose"}:
        options.append(found.pop(0))
    first = _first_word(found)
    if _ANALYZE.isdisjoint(option.text for option in options):
        return first == "execute"  # its connection knows what was prepared
    return first not in _READS or _part_acts(found)


def _part_acts(found: list[Token]) -> bool:
    if sum(token.text == "with" for token in found) > _MOST_WITHS:
        return True
    names = (place for place, token in enumerate(found) if token.kind not in _NO_NAMES)
    return any(_acts_at(found, place) for place in names)


def _acts_at(found: list[Token], place: int) -> bool:
    """Return whether something begins at ``place`` that does more than read."""
    token, after = found[place], found[place + 1 : place + 4]
    if place == 0 or _is(found[place - 1], "("):
        verb = _main_verb(found, place) if token.text == "with" else place
        if _is_dml(found[verb : verb + _LONGEST_TARGET]):
            return True
    if _calls_what_acts(token, after):
        return True
    if token.kind != "word" or _is_label(found[:place][-1:]):
        return False
    return token.text == "into" or (token.text == "for" and _locks(after))


def _is(token: Token, sign: str) -> bool:
    return token.kind == "other" and token.text == sign


def _main_verb(found: list[Token], start: int) -> int:
    """Return the index of the verb after the members of a WITH, or of the end if there is none."""
    depth = 0
    for place in range(start + 1, len(found)):
        token, before = found[place], found[place - 1]
        depth += _is(token, "(") - _is(token, ")")
        if depth < 0:
            break
        names_a_member = before.text in {"with", "recursive"} or before.text.endswith(",")
        if depth == 0 and token.kind == "word" and token.text in _VERBS and not names_a_member:
            return place
    return len(found)


def _is_dml(found: list[Token]) -> bool:
    """Return whether a statement that changes rows begins here, not just a name like ``update``."""
    words = [token.text if token.kind == "word" else "" for token in found]
    if words[:1] == ["update"]:
        return "set" in words and found[1].kind not in _NO_NAMES
    return words[:2] in (["delete", "from"], ["insert", "into"], ["merge", "into"])


def _calls_what_acts(token: Token, after: list[Token]) -> bool:
    if token.kind == "unicode":  # it may spell any name
        return bool(after) and after[0].text in {"(", "uescape"}
    return token.names and bool(after) and _is(after[0], "(") and function_acts(token.text)


def _is_label(before: list[Token]) -> bool:
    """Return whether a word is in a place where any word may be: ``AS for``, ``item.into``."""
    return bool(before) and before[0].text in {"as", "."}


def _locks(after: list[Token]) -> bool:
    """Return whether FOR is followed by a row lock's name, unlike in ``substring(a FOR 3)``."""
    words = [token.text for token in after]
    return (
        words[:1] in (["update"], ["share"])
        or words[:3] == ["no", "key", "update"]
        or words[:2] == ["key", "share"]
    )
