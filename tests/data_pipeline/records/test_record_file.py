"""Records of a large file by number: the same records, in a few bytes of memory each."""

import json
import tracemalloc

import pytest

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.records.record import Record, RecordError, read_records
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.data_pipeline.records.record_table import RecordTable, table_of
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png")
    return tmp_path


def fields(record: Record) -> dict:
    return vars(record)


ROWS = [
    rl_row(problem_id=1, problem="<image>Ünïcode — ☃ 🎈?"),
    sft_row(problem_id="two", problem_type="OCR", data_source="x"),
    {**rl_row(problem_id=3), "note": 'a "quoted", [nested] {"thing": 1}\n'},
    rl_row(problem_id=4, data_source="y", problem_type="math", answer="4"),
]


def first_record(folder) -> Record:
    return read_records(write_rows(folder / "one.json", ROWS[:1]))[0]


def layouts(folder):
    text = [json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(ROWS)]
    for name, content in {
        "plain.json": json.dumps(ROWS),
        "wide.json": json.dumps(ROWS, indent=3, ensure_ascii=False).replace("\n", "\r\n"),
        "bom.json": "\ufeff [" + " , ".join(text) + "] ",
        "lines.jsonl": "\n".join(text),
        "bom.jsonl": "\ufeff" + "\r\n\r\n".join(text) + "\n\n",
    }.items():
        (folder / name).write_bytes(content.encode())
        yield folder / name


def test_records_are_those_of_the_file(folder):
    for path in layouts(folder):
        wanted = read_records(path)
        for kept_bytes in (0, 1 << 20):
            records = RecordFile(path, kept_bytes=kept_bytes)
            assert [fields(r) for r in records] == [fields(r) for r in wanted], path
            assert [fields(r) for r in records[1:3]] == [fields(r) for r in wanted[1:3]]
            assert fields(records[-1]) == fields(wanted[-1])
            assert [json.loads(records.text(i)) for i in range(len(records))] == ROWS
            with pytest.raises(IndexError):
                records[len(ROWS)]
        # Kept or read again, every time one object or a new one.
        small = RecordFile(path)
        assert small[0] is small[0]


def test_long_rows_over_many_chunks(folder, monkeypatch):
    monkeypatch.setattr("onethinker_jax.data_pipeline.records.json_rows.CHUNK", 64)
    for path in layouts(folder):
        records = RecordFile(path, kept_bytes=0)
        assert [r.problem_id for r in records] == [1, "two", 3, 4]


def test_the_table_is_that_of_the_records(folder):
    path = write_rows(folder / "rl.json", ROWS)
    table = RecordFile(path, kept_bytes=0).table
    plain = table_of(read_records(path))
    assert table.task_names == plain.task_names == ("multiple choice (image)", "OCR (image)", "math (image)")
    assert [table.task_names[i] for i in table.tasks][2] == "multiple choice (image)"
    assert table.source_names == ("test", "x", "y") or table.source_names == ("test", "x", "", "y")
    assert table.checksum == plain.checksum != table_of(read_records(path)[:-1]).checksum
    table.save(folder / "table.npz")
    again = RecordTable.load(folder / "table.npz")
    assert (again.tasks == table.tasks).all() and (again.sources == table.sources).all()
    assert (again.task_names, again.source_names, again.checksum) == (
        table.task_names,
        table.source_names,
        table.checksum,
    )


def test_bad_records_are_left_out(folder):
    rows = [rl_row(problem_id=i, problem_type="zzz" if i % 3 == 0 else "OCR") for i in range(9)]
    path = write_rows(folder / "rl.json", rows)
    with pytest.raises(RecordError, match=r"record 1 \(problem_id 0\): problem_type: unknown"):
        RecordFile(path, kept_bytes=0)
    records = RecordFile(path, kept_bytes=0, on_bad_record="skip", quarantine=folder / "bad.jsonl")
    assert [r.problem_id for r in records] == [1, 2, 4, 5, 7, 8]
    assert [r.origin for r in records] == [
        f"{path}: record {i + 1} (problem_id {i})" for i in (1, 2, 4, 5, 7, 8)
    ]
    assert len((folder / "bad.jsonl").read_text().splitlines()) == 3


def test_a_file_that_changes_is_an_error(folder):
    path = write_rows(folder / "rl.json", ROWS)
    records = RecordFile(path, kept_bytes=0)
    path.write_text(" " * 20 + path.read_text())
    with pytest.raises(RecordError, match=r"rl\.json: record 2: has changed since it was checked"):
        records[1]
    path.unlink()
    with pytest.raises(RecordError, match=r"rl\.json: cannot be read"):
        records[0]
    write_rows(path, ROWS)
    (folder / "a.png").unlink()
    with pytest.raises(RecordError, match=r"record 1 \(problem_id 1\): images: no such file"):
        records[0]


def test_a_large_file_takes_little_memory(folder):
    """24 MB of records: what stays is a few bytes each, and drawing from them adds nothing."""
    row = json.dumps(rl_row(note="z" * 4_000))
    path = folder / "large.json"
    path.write_text("[" + ",\n".join([row] * 6_000) + "]")
    assert path.stat().st_size > 24e6
    RecordStream([first_record(folder)], seed=0)  # what it imports is not the records'
    tracemalloc.start()
    try:
        records = RecordFile(path, kept_bytes=0)
        held = tracemalloc.get_traced_memory()[0]
        stream = RecordStream(records, seed=0)
        for _ in range(200):
            stream.next()
        drawn, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(records) == 6_000
    assert held < 1e6 and drawn < 2e6 and peak < 12e6, (held, drawn, peak)
