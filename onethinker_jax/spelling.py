"""The nearest of some known words, for whoever misspelt one."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`; None where none is like it."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is like `word`, else nothing: the end of an error's line.

    A word that several known ones begin with may be any of them: they are all named.
    """
    known = list(known)
    longer = sorted({other for other in known if other.startswith(f"{word}-")})
    if len(longer) > 1:
        return f"; did you mean {' or '.join(map(repr, longer))}?"
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found!r}?"
