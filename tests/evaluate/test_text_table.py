"""Tables as text: aligned in a pipe, paragraphs in a narrow terminal, no colour codes anywhere."""

import os
import pty
import subprocess
import sys

from onethinker_jax.evaluate.benchmarks.reading import BenchmarkFile
from onethinker_jax.evaluate.benchmarks.table import TABLE
from onethinker_jax.evaluate.ending import table_lines
from onethinker_jax.evaluate.results.result import Result
from onethinker_jax.evaluate.results.totals import Total
from onethinker_jax.evaluate.text_table import table_text
from tests.places import ROOT

HEAD = ("name", "metric", "A", "B")
ROWS = [("eval_long_name", "mIoU", "0.1234", ""), ("b", "AO", "1.0000", "")]


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert table_text(HEAD, ROWS, named=2, width=None) == [
        "name            metric       A",
        "eval_long_name  mIoU    0.1234",
        "b               AO      1.0000",
    ]


def test_a_narrow_terminal_gets_a_paragraph_a_row() -> None:
    rows = [("eval_long_name", "mIoU", "0.1234", "0.5678")]
    lines = table_text(HEAD, rows, named=2, width=22)
    assert lines == ["eval_long_name  mIoU", "  A 0.1234, B 0.5678"]
    assert table_text(HEAD, rows, named=2, width=38)[0].startswith("name ")


def test_published_numbers_stand_beside_ours(tmp_path) -> None:
    totals = {name: Total(0.5, 0.5, 0.4, 0.6, 10, 1) for name in ("R@0.5", "mIoU")}
    result = Result(TABLE["eval_charades"], BenchmarkFile(tmp_path, "", 10), [], totals, {})
    head, recall, miou = table_lines([result])
    assert head.split()[-4:] == ["Qwen3-VL-8B", "OneThinker-8B", "published", "as"]
    assert recall.split()[-5:] == ["10", "1", "0.335", "0.683", "released"]
    assert miou.split()[-3:] == ["0.367", "0.599", "released"]
    own = Result(TABLE["eval_refcoco_val"], BenchmarkFile(tmp_path, "", 10), [], {"mIoU": totals["mIoU"]}, {})
    assert table_lines([own])[0].split()[-1] == "failed"
    assert all(len(line) <= 40 for line in table_lines([result], 40))


def test_the_width_is_that_of_the_terminal() -> None:
    """A pipe has none; a terminal has its own."""
    code = "from onethinker_jax.evaluate.text_table import terminal_width as w; import sys; print(w(), flush=True)"
    environment = {**os.environ, "COLUMNS": "57"}
    words = [sys.executable, "-c", code]
    piped = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert piped.stdout.strip() == "None"
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as seen:
        subprocess.run(words, stdout=theirs, cwd=ROOT, env=environment, check=True)
        os.close(theirs)
        assert seen.read(100).decode().strip() == "57"
