"""docs/evaluation.md has the table of benchmarks as the code has it."""

import runpy
from pathlib import Path

from onethinker_jax.evaluate.benchmarks.table import TABLE
from tests.places import ROOT


def test_the_documents_table_is_that_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "benchmark_table.py"))
    text = Path(made["PAGE"]).read_text("utf-8")
    _, _, rest = text.partition(made["BEGIN"])
    table, _, _ = rest.partition(made["END"])
    assert table == made["table"](), "python docs/benchmark_table.py brings it up to date"
    assert table.startswith("31 benchmarks.")
    assert all(f"`{name}`" in table for name in TABLE)
