"""The nearest of some known words, for whoever misspelt one."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`; None where none is like it."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is like `word`, else nothing: the end of an error's line."""
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found!r}?"
