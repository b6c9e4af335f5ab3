"""The errors that a user can mend: a command shows them as one line that names the thing, without a traceback.

Every such error of ours is a `UserError`, so nothing lists them. One is a `ValueError` as well where what is wrong is
a value that the caller gave: a dataclass of settings that refuses a value is a wrong flag to the command line. An
error of any other class is a bug of ours, or of a library, and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can mend; the message says what and where, in one line."""


class SkippableError(UserError):
    """One record cannot be used, and others can: `on_bad_record` says whether that ends the work."""


class MissingLibrary(UserError, ImportError):
    """A library of an extra that is not installed; the message says how to install it."""


@contextmanager
def libraries_of(extra: str, *names: str) -> Iterator[None]:
    """For the block, which imports: a missing one of these libraries is a MissingLibrary that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in names:
            raise
        raise MissingLibrary(
            f"{error.name} is not installed; it comes with the extra {extra}: pip install -e '.[{extra}]'"
        ) from None


class EndedByStop(Exception):
    """Work that nobody waits for any more, since it was told to stop."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its colon: compilers and codecs go on for pages."""
    return str(error).partition("\n")[0].rstrip(": ")
