"""TensorBoard event files, scalars only, written here because `tensorboardX` imports torch where it finds it.

An event file is a sequence of records, each `length, checksum of length, data, checksum of data`, where data
is a protocol buffer `Event` (tensorflow/core/util/event.proto) and a checksum is a masked CRC-32C.
"""

import os
import socket
import struct
import time
from pathlib import Path
from types import TracebackType

from onethinker_jax.text_output import encodable


class EventFile:
    """Appends scalars to a new event file in `directory`; a context manager.

    Several files in one directory are one run to TensorBoard, so a resumed run just opens another.
    `step` orders points on the x axis; `wall_time` is in seconds since 1970.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("wb")
        self._write(_double(1, now) + _bytes(3, b"brain.Event:2"))
        self.flush()

    def scalars(self, step: int, values: dict[str, float], wall_time: float | None = None) -> None:
        """Writes one point for every tag in `values`."""
        summary = b"".join(
            _bytes(1, _bytes(1, encodable(tag).encode()) + _key(2, 5) + struct.pack("<f", value))
            for tag, value in values.items()
        )
        when = time.time() if wall_time is None else wall_time
        self._write(_double(1, when) + _key(2, 0) + _varint(step) + _bytes(5, summary))

    def restart(self, step: int) -> None:
        """Tells TensorBoard to forget what earlier files of the directory say from `step` on."""
        started = _bytes(7, _key(1, 0) + _varint(1))  # SessionLog, status START
        self._write(_double(1, time.time()) + _key(2, 0) + _varint(step) + started)

    def flush(self) -> None:
        """Hands what was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Ends the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C (Castagnoli polynomial) of TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
