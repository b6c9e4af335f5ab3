"""The cutting of TSV rows against Python's `csv`, its limits, and the memory that a large table takes."""

import base64
import csv
import io
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onethinker_jax.data_pipeline.sources.reading.tsv import TsvImage, TsvTable
from onethinker_jax.data_pipeline.sources.sample import SourceError
from tests.data_pipeline.sources.making import base64_text, choice_row, png, write_tsv
from tests.places import ROOT
from tests.waiting import HANG_S


def cells_of(table: TsvTable) -> list[dict[str, Any]]:
    rows = []
    for number, item in enumerate(table, 1):
        assert not isinstance(item, SourceError) and item[0] == number
        rows.append(item[1])
    return rows


CELLS = st.text(st.sampled_from("ab é漢\t\n\"', []"), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, st.binary(min_size=1, max_size=9)), max_size=6), st.booleans())
def test_rows_are_those_of_the_csv_module(tmp_path_factory, rows, mark):
    path = tmp_path_factory.getbasetemp() / "cells.tsv"
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["a", "b", "image"])
    writer.writerows([a, b, base64.b64encode(data).decode()] for a, b, data in rows)
    path.write_bytes(b"\xef\xbb\xbf" * mark + out.getvalue().encode())
    out.seek(0)
    wanted = list(csv.reader(out, delimiter="\t"))
    table = TsvTable(path, binary=("image",))
    assert list(table.columns) == wanted[0]
    for found, cells, (*_, data) in zip(cells_of(table), wanted[1:], rows, strict=True):
        assert [found["a"], found["b"]] == cells[:2]
        (span,) = found["image"].spans()
        assert TsvImage(path, span, 1, "image", "x.png").open("rb").read() == data


@pytest.mark.parametrize("written", [str, lambda items: str(items).replace("'", '"')], ids=["Python", "JSON"])
def test_the_items_of_a_list_lie_where_they_are_said_to(tmp_path, written):
    texts = [base64_text(1), base64_text(2)]
    path = write_tsv(tmp_path / "x.tsv", [{"q": 'say "go"', "image": written(texts)}])
    (cells,) = cells_of(TsvTable(path, binary=("image",)))
    images = [TsvImage(path, span, 1, "image", "x.png") for span in cells["image"].spans()]
    assert [image.open("rb").read() for image in images] == [png(1), png(2)]


def test_base64_may_be_broken_into_lines(tmp_path):
    text = base64.encodebytes(png(3)).decode()
    path = write_tsv(tmp_path / "x.tsv", [{"image": text}])
    (cells,) = cells_of(TsvTable(path, binary=("image",)))
    (span,) = cells["image"].spans()
    assert TsvImage(path, span, 1, "image", "x.png").open("rb").read() == png(3)


def test_windows_line_ends_and_empty_lines(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(b'a\tb\r\n1\t2\r\n\r\n3\t"4"\r\n')
    assert list(TsvTable(path)) == [(1, {"a": "1", "b": "2"}), (2, {"a": "3", "b": "4"})]
    path.write_bytes(b'a\tb\n"x" y\tz "w"')
    assert list(TsvTable(path)) == [(1, {"a": "x y", "b": 'z "w"'})]


@pytest.mark.parametrize("cell", [b"x" * 300, b'"' + b"x\n" * 150 + b'"', b'"' + b"x\n" * 150], ids=str)
def test_a_row_without_end_is_refused(tmp_path, cell):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\tb\n1\t2\n3\t" + cell)
    table = iter(TsvTable(path, max_row=200))
    next(table)
    with pytest.raises(SourceError, match=r"x.tsv: row 2: b: the row has more than 200 bytes"):
        next(table)


@pytest.mark.slow
def test_a_large_table_takes_little_memory(tmp_path):
    """200 MB of pictures, each row referring to a later one as well: the peak stays that of the imports."""
    picture = base64.b64encode(b"\x89PNG" + bytes(375_000)).decode()
    rows = (choice_row(n, image=picture if n % 2 else str(n + 1 if n < 800 else 1)) for n in range(1, 801))
    path = write_tsv(tmp_path / "x.tsv", rows)
    assert path.stat().st_size > 200e6
    code = """if True:
        import resource, sys
        from pathlib import Path
        from onethinker_jax.data_pipeline.sources.table import LAYOUTS
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
        samples = list(LAYOUTS["vlmevalkit"](Path(sys.argv[1])))
        assert len(samples) == 800 and len(samples[5].record.images[0].open("rb").read()) == 375_004
        print(before, peak())
    """
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=HANG_S, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    before, after = map(float, result.stdout.split())
    assert after - before < 25, f"{before:.0f} MB before, {after:.0f} MB after"
