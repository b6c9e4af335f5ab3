"""Safetensors files read slice by slice and written tensor by tensor, so that no file is ever held in memory.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length, the header as JSON
(name -> dtype, shape, begin and end), the tensors' bytes. The library's own reader and writer are not used
here because they give bfloat16 through a device and take whole files from memory.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from onethinker_jax.errors import UserError
from onethinker_jax.model.directory import lfs_error, other_weights

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),  # buffers of older checkpoints, such as BERT's position_ids
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

Index = tuple[slice, ...]


class WeightsError(UserError, ValueError):
    """A checkpoint whose files or tensors do not fit; the message lists them."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file, read when it is asked for."""

    file: Path
    offset: int  # bytes from the beginning of the file
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self, index: Index = ()) -> np.ndarray:
        """A copy of `tensor[index]`, of the whole by default; only its pages are read, none stays mapped."""
        if not all(self.shape):
            return np.zeros(self.shape, self.dtype)[index]
        return np.array(np.memmap(self.file, self.dtype, "r", self.offset, self.shape)[index])


def find_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a directory's safetensors file or files, by name.

    Where there is a single file and an index of several, the single file counts, as in transformers. Raises
    FileNotFoundError where there is neither, or a file of the index is missing, and WeightsError where a file is
    broken or of another format.
    """
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        names = [SINGLE]
    elif index.is_file():
        names = _indexed(index)
    elif error := other_weights(directory):
        raise WeightsError(f"{directory}: {error}")
    elif shards := sorted(file.name for file in directory.glob("*.safetensors")):
        raise WeightsError(
            f"{directory}: holds {shards[0]} but not {INDEX}, which says what lies where: fetch it"
        )
    else:
        raise FileNotFoundError(f"{directory}: neither {SINGLE} nor {INDEX}")
    found: dict[str, StoredTensor] = {}
    for name in names:
        found |= _header(directory / name)
    return found


def weights_digest(directory: Path) -> str:
    """SHA-256, in hexadecimal, of a directory's files of weights, by name one after the other.

    Raises as `find_tensors` does.
    """
    digest = hashlib.sha256()
    for file in sorted({tensor.file for tensor in find_tensors(directory).values()}):
        with file.open("rb") as stream:
            while part := stream.read(1 << 22):
                digest.update(part)
    return digest.hexdigest()


def _indexed(index: Path) -> list[str]:
    """The files that an index names. Raises FileNotFoundError naming those that are not there, or WeightsError."""
    if error := lfs_error(index):
        raise WeightsError(f"{index}: {error}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (index.parent / name).is_file()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of tensors ({error!r})") from error
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise FileNotFoundError(
            f"{index}: {len(missing)} of the {len(names)} files that it names are not there: "
            f"{', '.join(missing[:3])}{more}; fetch them"
        )
    return names


def _header(file: Path) -> dict[str, StoredTensor]:
    size = file.stat().st_size
    if error := lfs_error(file):
        raise WeightsError(f"{file}: {error}")
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _stored(file, 8 + length, size, name, entry) for name, entry in header.items()}
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file}: broken or cut short ({error})") from error
    return tensors


def _stored(file: Path, start: int, size: int, name: str, entry: Mapping) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise WeightsError(f"{name} is of dtype {entry['dtype']}, not one of {', '.join(_DTYPES)}")
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{name} {shape} does not fill its {end - begin} bytes")
    if start + end > size:
        raise ValueError(f"{name} ends at byte {start + end} of {size}")
    return StoredTensor(file, start + begin, dtype, shape)


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written; `fetch` makes its values, of `dtype` and `shape`, when their turn comes."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the file."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def write_tensors(tensors: Sequence[Tensor], directory: Path | None, *, max_file_bytes: int) -> None:
    """Writes files `model-00001-of-0000N.safetensors` with their index, or one `model.safetensors` if all fit.

    A tensor larger than `max_file_bytes` gets a file of its own. Without a `directory` every tensor is fetched all the
    same: a process that writes nothing must help another to gather it.
    """
    files: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if files[-1] and sum(other.nbytes for other in files[-1]) + tensor.nbytes > max_file_bytes:
            files.append([])
        files[-1].append(tensor)
    names = (
        [SINGLE]
        if len(files) == 1
        else [f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    )
    for name, part in zip(names, files, strict=True):
        write_file(part, None if directory is None else directory / name)
    if directory is not None and len(files) > 1:
        file_of = {t.name: name for name, part in zip(names, files, strict=True) for t in part}
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)},
            "weight_map": dict(sorted(file_of.items())),
        }
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(tensors: Iterable[Tensor], file: Path | None) -> None:
    """Writes one file, tensor by tensor in the given order, each into its place.

    In the file the widest dtypes come first, as the format wants them aligned, and then the names in order. Without a
    `file` every tensor is fetched all the same, as in `write_tensors`.
    """
    tensors = list(tensors)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places: dict[str, int] = {}
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name)):
        places[tensor.name], end = end, end + tensor.nbytes
        code, place = _CODES[tensor.dtype], [places[tensor.name], end]
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if file is None:
        for tensor in tensors:
            tensor.fetch()
        return
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            stream.seek(8 + len(text) + places[tensor.name])
            stream.write(np.ascontiguousarray(tensor.fetch()).view(np.uint8).data)
