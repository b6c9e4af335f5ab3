"""The errors that a user can mend: a command shows them as one line that names the thing, without a traceback.

Every such error of ours is a `UserError`, so nothing lists them. One is a `ValueError` as well where what is wrong is
a value that the caller gave: a dataclass of settings that refuses a value is a wrong flag to the command line. An
error of any other class is a bug of ours, or of a library, and keeps its traceback.
"""


class UserError(Exception):
    """Something that the user can mend; the message says what and where, in one line."""


class SkippableError(UserError):
    """One record cannot be used, and others can: `on_bad_record` says whether that ends the work."""


class MissingLibrary(UserError, ImportError):
    """A library of an extra that is not installed; the message says how to install it."""


class EndedByStop(Exception):
    """Work that nobody waits for any more, since it was told to stop."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its colon: compilers and codecs go on for pages."""
    return str(error).partition("\n")[0].rstrip(": ")
