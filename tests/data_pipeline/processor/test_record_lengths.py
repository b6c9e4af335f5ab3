"""Lengths of records that are told without decoding: those of the true example, and what is said where they exceed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.processor.processor import Lengths, Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.processor.record_lengths import (
    SAMPLED_RECORDS,
    UNKNOWN,
    KeptRecords,
    Limit,
    advice,
    chosen_records,
    lengths_key,
    measure,
    misfits,
)
from onethinker_jax.data_pipeline.processor.tokenizer import record_texts, train_tokenizer
from onethinker_jax.data_pipeline.records.record import read_records, task_of
from onethinker_jax.data_pipeline.records.record_table import table_of
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.data_pipeline.worlds.world import WorldPaths
from onethinker_jax.tasks import TASKS
from tests.data_pipeline.making import (
    rl_row,
    sft_row,
    write_image,
    write_rows,
    write_tokenizer,
    write_video,
)

VIDEO = {"images": ..., "videos": ["v.mp4"], "data_type": "video", "problem": "<video>Which?"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    return build_shapes_world(
        tmp_path_factory.mktemp("shapes") / "world",
        seed=5,
        train_rl=40,
        train_sft=80,
        heldout=40,
        captions=10,
    )


@pytest.mark.parametrize(
    ("file", "training"), [("sft_json", True), ("sft_json", False), ("rl_json", False), ("eval_json", False)]
)
def test_lengths_of_every_task_are_the_examples(world: WorldPaths, file: str, training: bool, tmp_path: Path):
    """The lengths of all records of the Shapes world, as the default run reads them."""
    records = read_records(getattr(world, file), media_root=world.directory)
    train_tokenizer(record_texts(records), tmp_path, vocab_size=600)
    processor = Processor.from_pretrained(
        tmp_path,
        MediaBounds(
            image_min_pixels=56 * 56,
            image_max_pixels=128 * 128,
            video_max_frames=16,
            video_min_pixels=32 * 32,
            video_max_pixels=64 * 96,
        ),
    )
    assert {task_of(record) for record in records} >= {task for task in TASKS if task.medium != "text"}
    measured = measure(records, range(len(records)), processor, training=training)
    assert not measured.errors
    for record, found in zip(records, measured.lengths.tolist(), strict=True):
        example = processor.training(record) if training else processor.prompt(record)
        assert found == [len(example.tokens), len(example.patches)], str(record)


@pytest.mark.parametrize(
    "size", [(1, 1), (31, 900), (100, 37), (333, 211), (64, 64), (20, 20), (2, 400), (700, 33)]
)
@pytest.mark.parametrize("turned", [1, 6])
def test_lengths_of_odd_images(tmp_path: Path, size: tuple[int, int], turned: int):
    write_image(tmp_path / "a.png", *size)
    if turned != 1:
        with Image.open(tmp_path / "a.png") as image:
            exif = Image.Exif()
            exif[0x0112] = turned
            image.save(tmp_path / "a.png", exif=exif)
    processor = Processor.from_pretrained(write_tokenizer(tmp_path / "base", image_pixels=(4096, 65536)))
    (record,) = read_records(write_rows(tmp_path / "rl.json", [rl_row()]))
    example = processor.prompt(record)
    assert processor.lengths(record, training=False) == Lengths(len(example.tokens), len(example.patches))


@pytest.mark.parametrize(
    "times", [[0.0], [0.0, 0.1, 0.9], [i / 8 for i in range(41)], [i * 1.7 for i in range(9)]]
)
@pytest.mark.parametrize("size", [(64, 96), (98, 34), (200, 352)])
@pytest.mark.parametrize("total", [None, 40_000])
def test_lengths_of_odd_videos(tmp_path: Path, times: list[float], size: tuple[int, int], total: int | None):
    write_video(tmp_path / "v.mp4", times, size=size, turned=len(times) % 2)
    processor = Processor.from_pretrained(
        write_tokenizer(tmp_path / "base"), MediaBounds(video_max_frames=12, video_total_pixels=total)
    )
    (record,) = read_records(write_rows(tmp_path / "rl.json", [rl_row(**VIDEO)]))
    example = processor.prompt(record)
    assert processor.lengths(record, training=False) == Lengths(len(example.tokens), len(example.patches))


# ---------------------------------------------------------------- limits

LENGTHS = np.array([[10, 4], [60, 4], [UNKNOWN, UNKNOWN], [33, 100], [70, 200]], np.int32)
TOKENS = Limit("--sft.batch.tokens", "tokens", 50)
PATCHES = Limit("--sft.batch.patches", "patches", 100)
ANSWER = Limit("--rl.batch.tokens", "tokens", 80, beside=20)


def test_what_exceeds_a_limit_and_what_would_do():
    found = misfits(LENGTHS, [TOKENS, PATCHES])
    assert [(one.number, one.limit.flag, one.needed) for one in found] == [
        (1, "--sft.batch.tokens", 60),
        (4, "--sft.batch.tokens", 70),
    ]
    assert str(found[0]) == "60 tokens, more than --sft.batch.tokens 50"
    assert advice(LENGTHS, [TOKENS, PATCHES]) == "--sft.batch.tokens 80 --sft.batch.patches 208"
    assert advice(LENGTHS[:2], [TOKENS, PATCHES]) == "--sft.batch.tokens 64"
    (one,) = misfits(LENGTHS[:5], [ANSWER])
    assert str(one) == "70 tokens and 20 beside them, more than --rl.batch.tokens 80"
    assert advice(LENGTHS, [ANSWER]) == "--rl.batch.tokens 96"
    values = [
        Limit(limit.flag, limit.of, limit.value(LENGTHS), limit.beside) for limit in (TOKENS, PATCHES, ANSWER)
    ]
    assert misfits(LENGTHS, values) == []


# ---------------------------------------------------------------- a corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    write_image(tmp_path / "a.png")
    write_tokenizer(tmp_path / "base")

    def make(rows: list[dict]) -> Path:
        return write_rows(tmp_path / "rows.json", rows)

    return make


def test_a_corpus_is_measured_once(corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is in the file is not measured again; what is not there, and what failed, is."""
    path = corpus([rl_row(problem_id=i, problem="<image>" + "word " * i) for i in range(30)])
    records, processor = read_records(path), Processor.from_pretrained(tmp_path / "base")
    asked: list[int] = []
    real = Processor.lengths

    def counted(self, record, *, training):
        asked.append(record.problem_id)
        return real(self, record, training=training)

    monkeypatch.setattr(Processor, "lengths", counted)
    key = lengths_key(path, processor, training=False, numbers=range(30))
    file, told = tmp_path / "lengths" / f"{key}.npy", []
    first = measure(records, range(30), processor, training=False, file=file, threads=3, tell=told.append)
    assert sorted(asked) == list(range(30)) and told == list(range(1, 31))
    asked.clear()
    second = measure(records, range(30), processor, training=False, file=file)
    assert asked == [] and np.array_equal(first.lengths, second.lengths)
    some = np.load(file)
    some[[3, 17]] = UNKNOWN
    np.save(file, some)
    third = measure(records, range(30), processor, training=False, file=file, threads=2)
    assert sorted(asked) == [3, 17] and np.array_equal(first.lengths, third.lengths)


def test_the_key_changes_with_what_lengths_depend_on(corpus, tmp_path: Path):
    path = corpus([rl_row()])
    small = Processor.from_pretrained(tmp_path / "base", MediaBounds(image_max_pixels=4096))
    large = Processor.from_pretrained(tmp_path / "base", MediaBounds(image_max_pixels=8192))
    keys = {
        lengths_key(path, processor, training=training, numbers=range(count))
        for processor in (small, large)
        for training in (False, True)
        for count in (0, 1)
    }
    assert len(keys) == 8
    assert lengths_key(path, small, training=False, numbers=range(1)) in keys
    corpus([rl_row(), rl_row()])
    assert lengths_key(path, small, training=False, numbers=range(1)) not in keys


def test_records_that_cannot_be_measured_are_named(corpus, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    path = corpus([sft_row(problem_id=1), sft_row(problem_id=2, images=["broken.png"]), rl_row(problem_id=3)])
    records, processor = read_records(path), Processor.from_pretrained(tmp_path / "base")
    measured = measure(records, range(3), processor, training=True)
    assert (measured.lengths[:, 0] != UNKNOWN).tolist() == [True, False, False]
    assert measured.errors[1].startswith(f"{path}: record 2 (problem_id 2): ")
    assert "broken.png: not a readable image" in measured.errors[1]
    assert (
        measured.errors[2] == f"{path}: record 3 (problem_id 3): messages: is missing, which training needs"
    )
    first = measure(records, range(3), processor, training=True, stop_at_error=True)
    assert list(first.errors) == [1]


def test_which_records_are_measured():
    assert list(chosen_records(5, "all")) == [0, 1, 2, 3, 4]
    assert list(chosen_records(5, "none")) == []
    parts = [list(chosen_records(7, "all", host=host, hosts=3)) for host in range(3)]
    assert sorted(number for part in parts for number in part) == list(range(7))
    sampled = chosen_records(10 * SAMPLED_RECORDS, "sample")
    assert len(set(sampled)) == SAMPLED_RECORDS and (sampled[0], sampled[-1]) == (0, 10 * SAMPLED_RECORDS - 1)
    assert list(chosen_records(SAMPLED_RECORDS, "sample")) == list(range(SAMPLED_RECORDS))


def test_records_without_some_of_them(corpus):
    records = read_records(corpus([rl_row(problem_id=i, data_source=f"s{i % 2}") for i in range(6)]))
    kept = KeptRecords(records, [1, 4])
    assert [record.problem_id for record in kept] == [0, 2, 3, 5] and len(kept) == 4
    assert [record.problem_id for record in kept[1:3]] == [2, 3] and kept[-1].problem_id == 5
    table = table_of(kept)
    assert [table.source_names[code] for code in table.sources] == ["s0", "s0", "s1", "s1"]
    assert table.checksum not in (table_of(records).checksum, KeptRecords(records, [1, 3]).table.checksum)
    assert table.checksum == KeptRecords(records, [4, 1]).table.checksum
