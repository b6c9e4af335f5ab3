"""Qt's binary resource files (`.rcc`): a tree of folders and files in one file, without Qt.

The layout as Qt's resource compiler writes it, all numbers big-endian: "qres", then the version and where tree, data
and names begin. A node of the tree is 14 bytes, 22 from version 2 on (a time stamp follows): where its name is, flags,
and for a folder how many children it has and which node is the first, for a file its language and where its data is.
"""

import struct
import zlib
from collections.abc import Iterator

from onethinker_jax.data_pipeline.photos.library import LibraryError

_COMPRESSED, _FOLDER, _ZSTANDARD = 1, 2, 4


def rcc_files(data: bytes, *, name: str) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of all files in an `.rcc` file's bytes.

    Raises LibraryError naming the file `name`: not such a file, cut off, or compressed by Zstandard.
    """
    if data[:4] != b"qres":
        raise LibraryError(f"{name} is not a Qt resource file")
    try:
        version, tree, contents, names = struct.unpack_from(">4I", data, 4)
        yield from _walk(data, (version, tree, contents, names), 0, "")
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise LibraryError(f"{name} is a damaged Qt resource file: {error}") from error
    except NotImplementedError as error:
        raise LibraryError(f"{name}: {error}") from None


def _walk(data: bytes, header: tuple[int, ...], node: int, folder: str) -> Iterator[tuple[str, bytes]]:
    version, tree, contents, names = header
    at = tree + node * (22 if version >= 2 else 14)
    name, flags = struct.unpack_from(">IH", data, at)
    path = f"{folder}/{_name(data, names + name)}".lstrip("/") if node else ""
    if flags & _FOLDER:
        count, first = struct.unpack_from(">II", data, at + 6)
        for child in range(first, first + count):
            if child <= node:
                raise struct.error("a folder that holds itself")
            yield from _walk(data, header, child, path)
        return
    if flags & _ZSTANDARD:
        raise NotImplementedError(f"{path} is compressed by Zstandard, which is not read")
    (start,) = struct.unpack_from(">I", data, at + 10)
    (size,) = struct.unpack_from(">I", data, contents + start)
    content = data[contents + start + 4 :][:size]
    if len(content) < size:
        raise struct.error(f"{path} is cut off")
    yield path, zlib.decompress(content[4:]) if flags & _COMPRESSED else content


def _name(data: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", data, at)
    return data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")
