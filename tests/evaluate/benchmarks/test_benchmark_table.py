"""The table of benchmarks: complete, consistent, and how it is asked."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.records.record import task_of
from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.evaluate.benchmarks import captions, question_answering
from onethinker_jax.evaluate.benchmarks.table import TABLE, BenchmarkError, differences, find, md5_of
from onethinker_jax.evaluate.benchmarks.task_metrics import metrics_of
from onethinker_jax.evaluate.benchmarks.types import DataFile
from tests.data_pipeline.making import write_rows
from tests.data_pipeline.sources.making_grounding import write_originals
from tests.places import ROOT

OWN_FILES = [
    *(f"eval_{name}" for name in ("charades", "activitynet", "anet_rtl")),
    *(f"eval_refcoco{plus}_{split}" for plus in ("", "p") for split in ("testA", "testB", "val")),
    *("eval_refcocog_test", "eval_refcocog_val", "eval_stvg", "eval_got10k"),
    *(f"eval_seg_{name}" for name in ("refcoco", "refcocop", "refcocog", "mevis", "reasonvos")),
]


def test_onethinkers_own_files_come_first() -> None:
    """Of grounding, tracking and segmentation: 18 of the script's 23, the other 5 are of video QA."""
    rows = [TABLE[name] for name in OWN_FILES]
    assert len(rows) == 18
    for row in rows:
        assert row.files[0] == DataFile("onethinker", f"{row.name}.json")
        assert len(row.files) > 1, f"{row.name} has no original file"


FAMILIES = {
    "image QA": 8,
    "video QA": 7,
    "captioning": 3,
    "temporal grounding": 3,
    "spatial grounding": 3,
    "spatio-temporal grounding": 1,
    "tracking": 1,
    "image segmentation": 3,
    "video segmentation": 2,
}


def test_the_papers_31_benchmarks_are_there() -> None:
    titles = {(row.family, row.title) for row in TABLE.values()}
    assert Counter(family for family, _ in titles) == FAMILIES and len(titles) == 31


def test_questions_and_captions_have_known_layouts_and_fitting_judges() -> None:
    for row in (*question_answering.ROWS, *captions.ROWS):
        assert {file.layout for file in row.files} <= set(LAYOUTS), row.name
        assert all(len(file.md5) in (0, 32) for file in row.files)
        assert (row.published_form == "standard") <= (row.protocol == "vlmevalkit"), row.name
    judged = Counter(row.judge for row in TABLE.values() if row.family in ("image QA", "captioning"))
    assert judged == {"optional": 9, "required": 2}


def test_published_numbers_are_fractions_of_metrics_it_has() -> None:
    for row in TABLE.values():
        assert set(row.published) <= set(row.metrics), row.name
        assert all(0 < base < ours < 1 for base, ours in row.published.values()), row.name
        assert len(set(row.metrics)) == len(row.metrics)


@pytest.mark.parametrize("what", ["MMBench", "mmbench", "MMBench_DEV_EN", "mmbench_dev_en"])
def test_names_and_titles_are_found_in_any_case(tmp_path: Path, what: str) -> None:
    path = tmp_path / "MMBench_DEV_EN.tsv"
    path.touch()
    assert find(what, tmp_path)[::2] == (TABLE["MMBench_DEV_EN"], path)
    assert find(str(path))[0] is TABLE["MMBench_DEV_EN"]


def test_one_file_may_hold_a_benchmark_of_its_name_and_another(tmp_path: Path) -> None:
    path = tmp_path / "MMT-Bench_VAL.tsv"
    path.touch()
    assert find(str(path))[0] is TABLE["MMT-Bench_VAL"]
    caption, _, found = find("MMT-Caption", tmp_path)
    assert caption.split == "l2-category=visual_captioning" and found == path
    with pytest.raises(BenchmarkError, match=r"^RefCOCO: no such benchmark"):
        find("RefCOCO", tmp_path)  # eight splits have that title


def test_names_are_found_with_data(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"^--data .*nowhere: no such folder$"):
        find("charades", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"^--data .*file: is a file, not the folder that it lies in$"):
        find("charades", tmp_path / "file")
    with pytest.raises(BenchmarkError, match=r"^charades: .* has none of eval_charades\.json, charades_sta/"):
        find("charades", tmp_path)
    (tmp_path / "charades_sta").mkdir()
    original = tmp_path / "charades_sta" / "charades_sta_test.txt"
    original.touch()
    assert find("eval_charades", tmp_path) == (
        TABLE["eval_charades"],
        TABLE["eval_charades"].files[1],
        original,
    )
    own = tmp_path / "eval_charades.json"
    own.write_text("[]")
    assert find("charades", tmp_path)[1:] == (TABLE["eval_charades"].files[0], own)
    assert find(str(own))[0] is TABLE["eval_charades"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("eval_charades", r"^eval_charades: needs --data, the folder that holds eval_charades\.json$"),
        (
            "eval_chrades",
            r"^eval_chrades: no such benchmark, and no such file; did you mean 'eval_charades'\?$",
        ),
        ("MMBensh", r"^MMBensh: no such benchmark, and no such file; did you mean 'MMBench'\?$"),
        ("mmbench_dev", r"; did you mean 'MMBench_DEV_EN'\?$"),
        ("refcocog", r"did you mean 'eval_refcocog_test' or 'eval_refcocog_val' or 'eval_seg_refcocog'\?$"),
        ("nothing/eval_got10.json", r"no such file; did you mean 'eval_got10k'\?$"),
        ("xyz", r"^xyz: no such benchmark, and no such file \(known: .*eval_got10k"),
    ],
)
def test_what_is_not_known_is_one_line(what: str, said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        find(what)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("ReasonVOS", "eval_seg_reasonvos"), ("mevis/valid_u", "eval_seg_mevis"), ("got10k/val", "eval_got10k")],
)
def test_a_folder_of_a_benchmark_is_found(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    benchmark, file, path = find(str(tmp_path / folder))
    assert (benchmark.name, file.path, path) == (name, folder, tmp_path / folder)
    (tmp_path / "other").mkdir()
    with pytest.raises(BenchmarkError, match=r"other: no such benchmark, and no such file"):
        find(str(tmp_path / "other"))


def test_a_file_of_several_benchmarks_needs_a_name(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").touch()
    with pytest.raises(BenchmarkError, match=r"holds several benchmarks .*eval_refcoco_testA"):
        find(str(tmp_path / "refs(unc).p"))
    (tmp_path / "other.csv").touch()
    with pytest.raises(BenchmarkError, match=r"is no file of a benchmark"):
        find(str(tmp_path / "other.csv"))


def test_a_file_of_ones_own_is_measured_by_its_tasks(tmp_path: Path) -> None:
    rows = [
        {"problem_type": "temporal grounding", "data_type": "video"},
        {"problem_type": "multiple choice", "data_type": "image"},
        {"problem_type": "no such type", "data_type": "image"},
    ]
    path = write_rows(tmp_path / "mine.jsonl", rows, lines=True)
    benchmark, file, found = find(str(path))
    assert (benchmark.name, file.layout, found) == ("mine", "onethinker", path)
    assert benchmark.metrics == ("accuracy", "R@0.3", "R@0.5", "R@0.7", "mIoU")
    table = tmp_path / "MyBench.tsv"
    table.touch()
    benchmark, file, _ = find(str(table))
    assert (benchmark.name, file.layout, benchmark.metrics) == ("MyBench", "vlmevalkit", ("accuracy",))


def test_what_is_not_as_published_is_named(tmp_path: Path) -> None:
    path = tmp_path / "charades_sta_test.txt"
    path.write_bytes(b"content")
    md5 = hashlib.md5(b"content").hexdigest()
    assert md5_of(path) == md5 and md5_of(tmp_path) == ""
    benchmark = TABLE["eval_charades"]
    assert differences(benchmark, DataFile("x", "x", md5=md5[:8], rows=3), path, md5=md5, rows=3) == []
    lines = differences(benchmark, DataFile("x", "x", md5="0123", rows=3720), path, md5=md5, rows=3)
    assert lines == [
        f"{path}: its md5 is {md5}, that of the published file 0123",
        f"{path}: has 3 rows, eval_charades as published 3,720",
    ]
    assert differences(benchmark, benchmark.files[0], path, md5=md5, rows=3) == []


def test_originals_are_found_and_read_where_the_table_says(tmp_path: Path) -> None:
    """All benchmarks of grounding, tracking and segmentation, from small data sets in their publishers' layouts."""
    write_originals(tmp_path)
    counts = {}
    for name in OWN_FILES:
        benchmark, file, path = find(name, tmp_path)
        root = tmp_path / file.media if file.media else None
        samples = list(LAYOUTS[file.layout](Source(path, split=benchmark.split, media_root=root)))
        tasks = {task_of(sample.record) for sample in samples}
        assert set(benchmark.metrics) == set(metrics_of(tasks)), name
        counts[name] = len(samples)
        (line,) = differences(benchmark, file, path, md5=md5_of(path), rows=len(samples))
        assert f"{name} as published {file.rows:,}" in line
    assert [name for name, count in counts.items() if count != 1] == [
        *("eval_charades", "eval_activitynet", "eval_got10k", "eval_seg_mevis", "eval_seg_reasonvos")
    ]


def test_the_document_names_every_layout_and_original_file() -> None:
    text = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    files = [file for row in TABLE.values() for file in row.files if file.layout != "onethinker"]
    names = {*LAYOUTS, *(file.path for file in files if not file.path.endswith("_local.tsv"))}
    names |= {file.media for file in files if file.media}
    assert not sorted(name for name in names if f"`{name}`" not in text)
