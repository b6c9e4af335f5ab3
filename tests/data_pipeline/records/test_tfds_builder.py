"""JSON + media and the ArrayRecord corpus made of them give the same records, examples and batches."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Example, Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records import tfds_builder
from onethinker_jax.data_pipeline.records.record import Record, RecordError, read_records
from onethinker_jax.data_pipeline.records.record_archive import RecordArchive, open_records
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from tests.data_pipeline.making import (
    rl_row,
    sft_row,
    write_image,
    write_rows,
    write_tokenizer,
    write_video,
)
from tests.places import ROOT
from tests.waiting import HANG_S

ROWS = 14


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(JSON file, folder made of it): images and videos shared by several records, text beyond ASCII."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "media").mkdir()
    for number in range(3):
        write_image(folder / "media" / f"{number}.png", 64, 64 + 32 * number, seed=number)
    write_video(folder / "media" / "film.mp4", [i / 8 for i in range(16)])
    rows = []
    for number in range(ROWS):
        row = sft_row(
            "Wäs is it? " * (1 + number % 4), problem_id=number, data_source="s", problem_type="OCR"
        )
        if number % 5 == 4:
            row["messages"][0]["content"] = "<video>What happens?"
            del row["images"]
            row["videos"] = ["media/film.mp4"]
        elif number % 5 == 3:
            row["messages"][0]["content"] = "<image>and <image>: equal?"
            row["images"] = ["media/1.png", "media/2.png"]
        else:
            row["images"] = [f"media/{number % 3}.png"]
        rows.append(row)
    file = write_rows(folder / "sft.json", rows)
    assert tfds_builder.main([str(file), "--out", str(folder / "made"), "--shard-bytes", "2000"]) == 0
    return file, folder / "made"


def test_what_a_corpus_is_for(corpus, tmp_path):
    """Known from the table when the folder is opened; of a table of an older version when the record is read."""
    _, made = corpus
    assert len(open_records(made, purpose="sft")) == ROWS
    message = r"made: record 1 .problem_id 0.: problem: is missing, which RL needs"
    with pytest.raises(RecordError, match=message):
        open_records(made, purpose="rl")
    shutil.copytree(made, tmp_path / "made")
    with np.load(made / "records.npz") as table:
        np.savez(
            tmp_path / "made" / "records.npz",
            **{name: table[name] for name in table.files if name != "purposes"},
        )
    older = open_records(tmp_path / "made", purpose="rl")
    assert older[3:3] == [] and len(open_records(tmp_path / "made", purpose="sft")[:]) == ROWS
    with pytest.raises(RecordError, match=message):
        older[0]


def test_the_same_records_in_several_shards(corpus):
    file, made = corpus
    plain, stored = RecordFile(file), open_records(made)
    assert isinstance(stored, RecordArchive) and len(stored) == ROWS
    assert len(list((made / "corpus_records").glob("*/*array_record*"))) > 1
    assert len(list((made / "corpus_media").glob("*/*array_record*"))) > 1
    for one, two in zip(plain, stored, strict=True):
        kept = {**vars(one), "images": 0, "videos": 0, "origin": 0}
        assert kept == {**vars(two), "images": 0, "videos": 0, "origin": 0}
        for real, packed in zip((*one.images, *one.videos), (*two.images, *two.videos), strict=True):
            assert packed.open("rb").read() == real.open("rb").read()
            assert packed.name == real.name and str(packed).startswith(str(made))
    assert stored[-1].problem_id == ROWS - 1
    with pytest.raises(IndexError):
        stored[ROWS]
    numbers = {m.number for record in stored for m in (*record.images, *record.videos)}  # type: ignore[attr-defined]
    assert numbers == set(range(4)), "a file that records share is kept once"
    assert stored.table.checksum == plain.table.checksum


@pytest.fixture(scope="module")
def batches_of(qwen_directory):
    def make(records, count: int = 5, **media):
        processor = Processor.from_pretrained(
            qwen_directory,
            MediaBounds(video_min_pixels=4096, video_max_pixels=96 * 64),
            media=MediaReader(**media),
        )
        with TrainingBatches(
            RecordStream(records, seed=1), processor, BatchShape(2, 256, 256), window=8, workers=2
        ) as batches:
            return [next(batches) for _ in range(count)]

    return make


def test_a_folder_of_frames_is_kept_as_one_video(tmp_path):
    """With masks by names that count every fifth frame of some film: a place in the list is a frame's number."""
    folder = tmp_path / "film"
    folder.mkdir()
    names = [f"{5 * number:05}" for number in range(4)]
    for number, name in enumerate(names):
        write_image(folder / f"{name}.png", 30, 40, seed=number)
    mask = {"size": [30, 40], "counts": [100, 50, 1050]}
    masks = {"segmentation_rle": {names[2]: mask}, "frames": names}
    film = {"data_type": "video", "problem": "<video>Which?", "images": ..., "videos": ["film"], "fps": 2}
    row = rl_row(**film, problem_type="segmentation", options=[], answer=..., segmentation_output=masks)
    file = write_rows(tmp_path / "rl.json", [row])
    assert tfds_builder.main([str(file), "--out", str(tmp_path / "made")]) == 0
    (plain,), (stored,) = read_records(file), open_records(tmp_path / "made", purpose="rl")
    assert plain.segmentation is not None and stored.segmentation is not None
    assert plain.segmentation.frames == stored.segmentation.frames == (2,)
    media = MediaReader()
    one, two = (media.video(record.videos[0], None, fps=2, max_frames=9) for record in (plain, stored))
    assert len(one.frames) == 4 and np.array_equal(one.frames, two.frames)
    assert one.timestamps.tolist() == two.timestamps.tolist() == [0, 0.5, 1, 1.5]
    write_rows(file, [row, {**row, "problem_id": 8, "fps": 3}])
    assert tfds_builder.main([str(file), "--out", str(tmp_path / "other")]) == 1


def test_the_same_batches(corpus, batches_of, tmp_path):
    """Decoded here, or in processes that open the corpus themselves, or from the cache of frames."""
    file, made = corpus
    wanted = batches_of(RecordFile(file))
    with MediaPool(1) as pool:
        for media in ({}, {"pool": pool}, {"cache": FrameCache(tmp_path / "cache", 1 << 24)}):
            found = batches_of(RecordArchive(made), **media)
            jax.tree.map(np.testing.assert_array_equal, found, wanted)
    cache = FrameCache(tmp_path / "cache", 1 << 24)
    jax.tree.map(np.testing.assert_array_equal, batches_of(RecordFile(file), cache=cache), wanted)
    assert cache.misses == 0, "entries are found by content, wherever it lies"


def test_examples_of_records_on_disk_are_cached(corpus, tmp_path, monkeypatch):
    """Each reading of a record is another object; and two records with one id and one question stay two."""
    file, made = corpus
    twice = tmp_path / "twice.json"  # the same id, question and answer; another image
    rows = [rl_row(problem_id=7, images=[f"{number}.png"]) for number in range(2)]
    for number in range(2):
        write_image(tmp_path / f"{number}.png", 64, 64, seed=number)
    write_rows(twice, rows)
    processor = Processor.from_pretrained(write_tokenizer(tmp_path), grid_side=8, cache_bytes=2**24)
    making, processed = [], processor._process

    def process(record: Record, *, training: bool) -> Example:
        making.append(record)
        return processed(record, training=training)

    monkeypatch.setattr(processor, "_process", process)
    kept = read_records(file)
    for records in (RecordFile(file, kept_bytes=0), RecordArchive(made), kept):
        assert (records[0] is records[0]) == (records is kept)
        making.clear()
        first = [(processor.training(records[i]), processor.prompt(records[i])) for i in range(ROWS)]
        again = [(processor.training(records[i]), processor.prompt(records[i])) for i in range(ROWS)]
        assert all(
            a is b for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
        )
        assert len(making) == (0 if records is kept else 2 * ROWS)  # `kept` is the first file's again
        assert len({id(example) for pair in first for example in pair}) == 2 * ROWS
    one, two = (processor.prompt(record) for record in RecordFile(twice, kept_bytes=0))
    assert one.patches.tobytes() != two.patches.tobytes()
    assert processor.cached_bytes <= 2**24


def test_errors(corpus, tmp_path, capsys):
    file, made = corpus
    assert tfds_builder.main([str(file), "--out", str(made)]) == 1
    assert f"error: {made}: holds a corpus already" in capsys.readouterr().err
    assert tfds_builder.main([str(file), "--out", str(made), "--shard-bytes", "0"]) == 2
    with pytest.raises(RecordError, match="is not a corpus made by tfds_builder"):
        open_records(tmp_path)
    with pytest.raises(RecordError, match=r"none\.json"):
        open_records(tmp_path / "none.json")
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    rows = [rl_row(problem_id=1), rl_row(problem_id=2, options=[]), rl_row(problem_id=3, images=["b.png"])]
    bad = write_rows(tmp_path / "rl.json", rows)
    out = tmp_path / "out"
    assert tfds_builder.main([str(bad), "--out", str(out)]) == 1
    assert "record 2 (problem_id 2): options" in capsys.readouterr().err
    assert tfds_builder.main([str(bad), "--out", str(out), "--on-bad-record", "skip"]) == 0
    records = open_records(out)
    assert [record.problem_id for record in records] == [1, 3]
    assert "problem_id 2" in json.loads((out / "bad.jsonl").read_text())["reason"]
    with pytest.raises(MediaError, match=r"out/b\.png: not a readable image"):
        MediaReader().image(records[1].images[0], None)
    torn = tmp_path / "torn"
    shutil.copytree(out, torn)
    (shard,) = (torn / "corpus_media").glob("*/*array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(MediaError, match=r"torn/a\.png: .*corpus_media"):
        MediaReader().image(open_records(torn)[0].images[0], None)
    halved = tmp_path / "halved"
    shutil.copytree(out, halved)
    shutil.rmtree(halved / "corpus_records")
    with pytest.raises(RecordError, match="halved/corpus_records"):
        open_records(halved)


def test_reading_needs_no_tensorflow(corpus):
    code = (
        "import sys; from onethinker_jax.data_pipeline.records.record_archive import open_records; "
        f"open_records({str(corpus[1])!r})[0].images[0].open('rb'); "
        "found = {'tensorflow', 'torch'} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr


def test_beam_writes_the_same_corpus(corpus, tmp_path):
    """With the Python that BEAM_PYTHON names: Beam's protobuf forbids it beside the trainer's."""
    python = os.environ.get("BEAM_PYTHON")
    if not python:
        pytest.skip("BEAM_PYTHON names no Python that has Apache Beam")
    file, made = corpus
    module = "onethinker_jax.data_pipeline.records.tfds_builder"
    arguments = [str(file), "--out", str(tmp_path / "beam"), "--shard-bytes", "2000"]
    done = subprocess.run(
        [python, "-m", module, *arguments, "--beam-runner", "DirectRunner"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    one, two = open_records(made), open_records(tmp_path / "beam")
    for left, right in zip(one, two, strict=True):
        assert left.messages == right.messages and left.problem_id == right.problem_id
        for a, b in zip((*left.images, *left.videos), (*right.images, *right.videos), strict=True):
            assert a.open("rb").read() == b.open("rb").read()
    shards = [
        sorted(path.relative_to(folder) for path in folder.glob("corpus_*/*/*array_record*"))
        for folder in (made, tmp_path / "beam")
    ]
    assert shards[0] == shards[1]
