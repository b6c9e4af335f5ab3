"""`benchmarks.gpu`: every part runs at tiny sizes, what fails or does not fit is named, and the table's arithmetic."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks.gpu import __main__ as script
from benchmarks.gpu.cases import Case, full_cases, model_settings, run_of, tiny_cases
from benchmarks.gpu.table import OURS, TITLES, Ceilings, Row, Table, Work
from benchmarks.gpu.worker import rows, too_late
from onethinker_jax.model.family import MEMBERS
from onethinker_jax.train.cost.hardware import GPUS
from tests.places import ROOT
from tests.waiting import HANG_S

Cells = dict[str, str]


def table_of(text: str) -> list[Cells]:
    """The rows of the Markdown table that a text ends with, by title; a title that comes twice has its number."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    titles = ["of bandwidth" if number == 9 else title for number, title in enumerate(TITLES)]
    assert lines[0] == list(TITLES)
    return [dict(zip(titles, [*cells, *[""] * len(titles)], strict=False)) for cells in lines[2:]]


@pytest.fixture(scope="module")
def tiny() -> tuple[list[Cells], str]:
    """The table that the script prints at tiny sizes, and what it said meanwhile."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--minutes", str(HANG_S / 60)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return table_of(done.stdout), done.stderr


def test_every_part_has_figures(tiny: tuple[list[Cells], str]) -> None:
    found, said = tiny
    assert not [row for row in found if not float(row["ms"].replace(",", "") or 0) > 0]
    for case in tiny_cases():
        form = OURS if case.library == "jax" else "transformers, eager"
        mine = [row for row in found if row["part"] == case.part and row["case"].startswith(case.size)]
        assert [row for row in mine if row["form"] == form or case.part == "attention"], case.name
    for row in found:
        assert f"{row['part']}, {row['case']}, {row['form']}, ms {row['ms']}" in said


def test_what_programs_cost_stands_beside_what_they_took(tiny: tuple[list[Cells], str]) -> None:
    for row in tiny[0]:
        if row["part"] in ("training", "prefill", "decode", "RL step") and row["form"] == OURS:
            assert all(row[title] for title in ("TFLOP/s", "GB/s", "ceilings, ms", "tokens/s")), row


def test_forms_of_attention_agree(tiny: tuple[list[Cells], str]) -> None:
    errors = [float(row["notes"].removeprefix("error ")) for row in tiny[0] if row["form"] == "jax.nn"]
    assert len(errors) == 2
    assert max(errors) < 0.02  # bfloat16


def test_the_peer_does_the_same_work(tiny: tuple[list[Cells], str]) -> None:
    """A fresh model of either library knows nothing: its loss is about the logarithm of the vocabulary's size."""
    vocabulary = model_settings("tiny", run_of(tiny=True).scale).vocab_size
    losses = {
        row["form"]: float(row["notes"].split("loss ")[1].split(";")[0])
        for row in tiny[0]
        if row["part"] == "training"
    }
    assert set(losses) == {OURS, "transformers, eager"}
    assert all(abs(loss - math.log(vocabulary)) < 0.5 for loss in losses.values()), losses
    peers = [row for row in tiny[0] if row["form"].startswith("transformers")]
    assert len(peers) == 3
    assert all(float(row["ours is x"]) > 0 for row in peers)


def test_without_time_everything_is_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--tiny", "--minutes", "0"]) == 1
    found = table_of(capsys.readouterr().out)
    assert [(row["part"], row["case"]) for row in found] == [(case.part, case.size) for case in tiny_cases()]
    assert all(row["notes"].startswith("left out: ") for row in found)


def test_a_case_that_would_take_too_long_is_left_out() -> None:
    case = Case("prefill", 30, "8b", 2048)
    assert too_late(case, time.time() + 1000) is None
    late = too_late(case, time.time() + 10)
    assert late is not None
    assert late.notes.startswith("left out: may take 30 s, ")


class Failing:
    """A device whose memory does not hold a case."""

    kind = description = "none"
    cleared = False

    def measure(self, case: Case) -> Iterator[Row]:
        yield Row(case.part, case.size, seconds=1.0)
        raise RuntimeError("RESOURCE_EXHAUSTED: out of | memory\nwhile trying to allocate")

    def clear(self) -> None:
        self.cleared = True


def test_want_of_memory_is_a_row() -> None:
    device = Failing()
    measured, failure = rows(device, Case("training", 0, "8b", 16_384), time.time() + 1000)
    assert measured.seconds == 1.0
    assert failure.notes == "RuntimeError: RESOURCE_EXHAUSTED: out of / memory while trying to allocate"
    assert (failure.part, failure.case, failure.seconds) == ("training", "8b, 16,384 tokens", 0.0)
    assert device.cleared


def test_another_child_goes_on_after_one_that_died() -> None:
    """The child here measures every case that it is given, but dies in case 1."""
    row = Row("prefill", "x", seconds=1.0).to_json()
    child = f"""
import sys, json
for number in sys.argv[1:-2]:
    print(json.dumps({{"begin": int(number)}}), flush=True)
    if number == "1":
        sys.exit(3)
    print(json.dumps({{"row": {json.dumps(row)}}}), flush=True)
    print(json.dumps({{"end": int(number)}}), flush=True)
"""
    run = script.Run([sys.executable, "-c", child], {}, time.time() + HANG_S, Table())
    cases = [(number, Case("prefill", 0, "2b", 100 * number)) for number in range(1, 4)]
    cases = [(0, Case("ceilings", 0)), *cases]
    cases = run.take(cases)
    assert [number for number, _ in cases] == [2, 3]
    assert run.take(cases) == []
    assert [bool(row.seconds) for row in run.table.rows] == [True, False, True, True]
    assert run.table.rows[1].notes == "its process ended with status 3; the console says why"
    assert run.table.rows[1].case == "2b, 100 tokens"


def test_rows_pass_through_json() -> None:
    row = Row("decode", "8b", seconds=0.5, tokens=8, work=(Work(1.0, 2.0, 3.0, 4.0),), notes="ä")
    assert Row.from_json(row.to_json()) == row
    assert json.loads(row.to_json())["notes"] == "ä"


def test_cells_by_hand() -> None:
    """An H200 has 989 TFLOP/s and 4,800 GB/s; the ceilings here are 800 TFLOP/s and 4,000 GB/s."""
    table = Table(Ceilings(chip=GPUS["NVIDIA H200"]))
    table.add(Row("ceilings", "matrices", seconds=0.5, work=(Work(400e12, 400e12),)))
    table.add(Row("ceilings", "read", seconds=0.25, work=(Work(0.0, 0.0, 1000e9),)))
    table.add(Row("ceilings", "copied", seconds=0.25, work=(Work(0.0, 0.0, 900e9),)))
    work = (Work(800e12, 494.5e12, 400e9), Work(0.0, 0.0, 96e9, runs=10))
    table.add(Row("training", "2b", seconds=2.0, tokens=4096, work=work, memory=2**31))
    table.add(Row("training", "2b", "transformers", seconds=4.0, tokens=4096))
    table.add(Row("training", "4b", notes="out of memory"))
    ours, theirs, failure = table_of(table.markdown())[3:]
    assert (ours["ms"], ours["tokens/s"], ours["GiB"]) == ("2,000", "2,048", "2.0")
    assert (ours["TFLOP/s"], ours["of ceiling"], ours["MFU"]) == ("400", "50%", "25%")
    assert (ours["GB/s"], ours["of bandwidth"]) == ("680", "17%")
    # 800 / 989 s and 10 x 96 / 4,800 s; 800 / 800 s and 10 x 96 / 4,000 s
    assert (ours["plan, ms"], ours["ceilings, ms"]) == ("1,009", "1,240")
    assert (theirs["ours is x"], theirs["MFU"], ours["ours is x"]) == ("2.00", "", "")
    assert (failure["ms"], failure["notes"]) == ("", "out of memory")


def test_cases_are_those_that_are_promised() -> None:
    cases = full_cases()
    assert len(set(cases)) == len(cases)
    ours = [case for case in cases if case.library == "jax"]
    trained = {(case.model, case.tokens) for case in ours if case.part == "training"}
    assert trained == {(model, tokens) for model in ("2b", "4b", "8b") for tokens in (4096, 8192, 16_384)}
    decoded = {(case.samples, case.tokens) for case in ours if case.part == "decode"}
    assert decoded == {(samples, tokens) for samples in (8, 64, 256) for tokens in (2048, 8192, 16_384)}
    assert {case.model for case in cases} - {""} <= set(MEMBERS)
    for case in cases:  # a peer's row has one of ours to stand beside
        assert case.library == "jax" or [
            one for one in ours if (one.part, one.size) == (case.part, case.size)
        ]
    assert {case.part for case in cases} == {case.part for case in tiny_cases()}
