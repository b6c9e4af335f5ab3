"""Pickles of plain values, read without running anything that they name.

A pickle may name any function of the process and have it called. This reader knows none: whatever a pickle names is
refused, except the two names by which numpy's scalars are written, and the one by which Python 3 writes bytes for
Python 2, and for these it has stand-ins of its own. What comes back holds numbers, texts, None, and tuples, lists,
sets and dicts of them. Texts of Python 2 come as bytes, `text` reads both.
"""

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.sources.sample import SourceError

# What Python's unpickler raises on bytes that are no pickle, beside its own error.
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, MemoryError, RecursionError, struct.error),
)
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_CODES = dict(
    zip(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "b1"], "bhiqBHIQfd?", strict=True)
)
"""A format of numpy -> that of the module struct."""


def read_plain(path: Path) -> Any:
    """The value that a pickle file holds.

    Raises SourceError: it cannot be read, is no pickle, or names anything but plain types.
    """
    try:
        data = path.read_bytes()
        _check_memo(data)
        return _Plain(io.BytesIO(data), encoding="bytes").load()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except _Refused as error:
        raise SourceError(f"{path}: {error}") from None
    except _BROKEN as error:
        said = str(error) or type(error).__name__
        raise SourceError(f"{path}: is no pickle of plain values ({said:.200})") from None


def text(value: Any) -> Any:
    """A text of Python 2 as a text; any other value as it is. Raises UnicodeDecodeError: it is not UTF-8."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def named(value: Any) -> dict[str, Any] | None:
    """A dict with its keys and texts as texts; None where it is no dict. Raises UnicodeDecodeError."""
    if not isinstance(value, dict):
        return None
    return {str(text(key)): text(inner) for key, inner in value.items()}


def _check_memo(data: bytes) -> None:
    """Python's unpickler makes room for as many values as the largest number that a pickle gives one, up to 2**32."""
    for count, (code, argument, _) in enumerate(pickletools.genops(data)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise ValueError(f"numbers its value {count} as {argument}")


class _Refused(SourceError):
    """A name that a pickle of plain values has no need of."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY and name == "scalar":
            return _scalar
        if (module, name) == ("numpy", "dtype"):
            return _Format
        if (module, name) == ("_codecs", "encode"):
            return _encoded
        raise _Refused(f"names {module}.{name}, which a file of plain values does not: it is not read")


class _Format:
    """Stands for numpy's dtype: a number's format, such as "i8"."""

    def __init__(self, name: Any, *_: Any):
        name = text(name)
        if name not in _CODES:
            raise _Refused(f"holds a value of numpy's type {name!r:.40}, which is no plain number")
        self.code, self.order = _CODES[name], "<"

    def __setstate__(self, state: Any) -> None:
        """(version, byte order, …), as numpy writes it."""
        self.order = ">" if text(state[1]) == ">" else "<"


def _scalar(form: Any, data: Any) -> Any:
    if not isinstance(form, _Format) or not isinstance(data, bytes):
        raise _Refused("holds a value of numpy that is no plain number")
    return struct.unpack(form.order + form.code, data)[0]


def _encoded(value: Any, encoding: Any) -> bytes:
    if not isinstance(value, str) or text(encoding) != "latin1":
        raise _Refused("holds bytes in another way than Python writes them")
    return value.encode("latin1")
