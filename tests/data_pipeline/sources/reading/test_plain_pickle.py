"""Pickles are read without running anything: what is plain comes back, what is not is refused by name."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.sources.reading.plain_pickle import named, read_plain
from onethinker_jax.data_pipeline.sources.sample import SourceError

VALUE = [
    {"ref_id": 1, "box": (1.5, -2, None, True), "sentences": [{"sent": "café", "raw": b"\xff"}], "all": {3}}
]


def python2(value: object) -> bytes:
    """The opcodes with which Python 2's protocol 2 writes a value: its texts are bytes (`U`), or unicode (`X`)."""
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(inner) for key, inner in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, str)
    data = value.encode()
    return b"U" + bytes([len(data)]) + data if value.isascii() else b"X" + struct.pack("<I", len(data)) + data


def write_python2(path: Path, value: object) -> Path:
    path.write_bytes(b"\x80\x02" + python2(value) + b".")
    pickletools.dis(path.read_bytes(), out=io.StringIO())  # a pickle by the standard library's word
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(tmp_path: Path, protocol: int) -> None:
    value = VALUE
    if protocol < 4:  # these write a set as a call of Python's own function
        value = [{**VALUE[0], "all": [3]}]
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_plain(path) == value


def test_texts_of_python_2(tmp_path: Path) -> None:
    (ref,) = read_plain(
        write_python2(tmp_path / "a.p", [{"split": "testA", "sent": "café", "box": [1, 2.5]}])
    )
    assert named(ref) == {"split": "testA", "sent": "café", "box": [1, 2.5]}
    assert named([]) is None


@pytest.mark.parametrize(
    "value", [np.int64(-7), np.float32(2.5), np.uint8(200), np.bool_(True), np.dtype(">i4").type(9)]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_scalars_of_numpy(tmp_path: Path, value: np.generic, protocol: int) -> None:
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps([value], protocol=protocol))
    (found,) = read_plain(path)
    assert found == value.item() and type(found) is type(value.item())


class Call:
    """Pickled, a call of any function."""

    def __init__(self, function: object, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ("value", "named_as"),
    [
        (Call(os.system, "touch ran"), "posix.system"),
        (Call(eval, "open('ran', 'w')"), r"\S*builtin\S*.eval"),
        (Call(getattr, "a", "upper"), r"\S*builtin\S*.getattr"),
        (Call(Path, "ran"), r"pathlib\S*.Path"),
        (np.zeros(3), r"numpy\S*"),
        (Call(bytearray, 10**12), r"\S*builtin\S*.bytearray"),
    ],
)
def test_nothing_that_a_pickle_names_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, named_as: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 5):
        (tmp_path / "refs.p").write_bytes(pickle.dumps([1, value], protocol=protocol))
        with pytest.raises(SourceError, match=rf"refs\.p: names {named_as}, which .*: it is not read$"):
            read_plain(tmp_path / "refs.p")
    assert sorted(os.listdir(tmp_path)) == ["refs.p"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        b"\x80\x02]",
        b"\x80\x02K\x01R.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x02}\x82\x01.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f]",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(I1\nI2\ntR.",
        b"\x80\x02Nr\xff\xff\xff\xff.",  # would take 32 GiB
        b"Np99999999999\n.",
        b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.",
        pickle.dumps([1, 2, 3])[:-4],
    ],
)
def test_what_is_no_plain_pickle_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(SourceError) as raised:
        read_plain(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    with pytest.raises(SourceError, match="cannot be read"):
        read_plain(tmp_path / "gone.p")


def test_any_damage_is_one_line(tmp_path: Path) -> None:
    whole, path, rng = pickle.dumps(VALUE, protocol=2), tmp_path / "refs.p", np.random.default_rng(0)
    said = []
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        with contextlib.suppress(SourceError):
            said.append(str(read_plain(path)))
    assert len(said) < 300  # most of it is found
