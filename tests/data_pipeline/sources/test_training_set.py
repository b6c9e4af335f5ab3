"""From data sets to training files: what is written is read back as it was, and every drop is counted."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.answer_forms import points
from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.data_pipeline.sources.__main__ import main
from onethinker_jax.data_pipeline.sources.sample import Source
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.data_pipeline.sources.training_set.licences import LICENCES
from onethinker_jax.data_pipeline.sources.training_set.mask_answers import mask_answer
from onethinker_jax.data_pipeline.sources.training_set.near_duplicates import (
    NearDuplicates,
    _Hashes,
    difference_hash,
    question_words,
)
from onethinker_jax.rewards.metrics import encode_rle
from onethinker_jax.rewards.score import score_response
from tests.data_pipeline.making import rl_row, write_image, write_rows, write_video
from tests.data_pipeline.sources import making_grounding as making
from tests.data_pipeline.sources.making import base64_text, write_tsv


def run(*words: object) -> int:
    return main([str(word) for word in words])


def about(out: Path) -> dict:
    return json.loads(out.with_suffix(".about.json").read_text())


@pytest.mark.parametrize("layout", making.WRITERS)
def test_what_is_written_is_read_back_for_training(layout: str, tmp_path: Path, processor: Processor) -> None:
    making.write_coco(tmp_path / "data" / "train2014")
    path = making.WRITERS[layout](tmp_path / "data")
    out = tmp_path / "made" / "rl.json"
    assert run(layout, path, "--out", out) == 0
    records = read_records(out, purpose="rl")
    wanted = [sample.record for sample in LAYOUTS[layout](Source(path))]
    assert len(records) == len(wanted) == about(out)["records"] and about(out)["left_out"] == {}
    assert len(processor.prompt(records[-1]).grids) == 1
    for record, true in zip(records, wanted, strict=True):
        names = ("problem_id", "problem", "data_type", "problem_type", "options", "data_source")
        assert [getattr(record, name) for name in names] == [getattr(true, name) for name in names]
        assert [str(f.resolve()) for f in paths(record)] == [str(f.resolve()) for f in paths(true)]
        assert record.answer and record.answer == (true.answer or record.answer)
        assert [f.fps for f in films(record)] == [f.fps for f in films(true)]
        if true.segmentation is not None:
            assert record.segmentation is not None
            assert record.segmentation.frames == true.segmentation.frames
            assert record.segmentation.rles == true.segmentation.rles
            assert record.segmentation.times == true.segmentation.times
            assert record.segmentation.listed == true.segmentation.listed


def test_masks_of_a_few_frames_of_a_film_keep_their_times(tmp_path: Path) -> None:
    """Names that count every fifth frame of a video of that rate: the row that is made names every frame."""
    write_video(tmp_path / "film.mp4", [number / 25 for number in range(20)], size=(30, 40))
    rles = {"00005": encode_rle(making.video_mask(3)), "00010": encode_rle(making.video_mask(9))}
    output = {"segmentation_rle": rles, "frames": ["00000", "00005", "00010"]}
    row = {"problem_id": 3, "problem": "Segment it.", "data_type": "video", "problem_type": "segmentation"}
    path = write_rows(
        tmp_path / "eval.json", [{**row, "path": "film.mp4", "fps": 25, "segmentation_output": output}]
    )
    assert run("onethinker", path, "--out", tmp_path / "made" / "rl.json") == 0
    (record,) = read_records(tmp_path / "made" / "rl.json", purpose="rl")
    assert record.segmentation is not None and record.segmentation.frames == (5, 10)
    assert record.segmentation.times == [0.2, 0.4] and json.loads(record.answer[8:-9])["time"] == 0.2


def films(record: Record) -> list[FrameFolder]:
    return [file for file in record.videos if isinstance(file, FrameFolder)]


def paths(record: Record) -> list[Path]:
    found = [
        file.folder if isinstance(file, FrameFolder) else file for file in (*record.images, *record.videos)
    ]
    return [file for file in found if isinstance(file, Path)]


def test_counts_licence_and_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = making.write_mevis(tmp_path / "mevis"), tmp_path / "rl.json"
    assert run("mevis", path, "--out", out, "--absolute-paths") == 0
    said = capsys.readouterr().out
    assert f"{out}: 2 records\n          2  segmentation (video)\nleft out: 0\n" in said
    assert "licence of the data: CC BY-NC-SA 4.0, non-commercial research only\n" in said
    (first, _) = json.loads(out.read_text())
    assert first["videos"] == [str(path / "JPEGImages" / "film")] and first["fps"] == 6.0
    before = out.read_bytes(), out.with_suffix(".about.json").read_bytes()
    assert run("mevis", path, "--out", out, "--absolute-paths") == 0
    assert (out.read_bytes(), out.with_suffix(".about.json").read_bytes()) == before
    assert about(out)["tasks"] == {"segmentation (video)": 2} and about(out)["licence"].startswith(
        "CC BY-NC-SA 4.0"
    )
    assert run("charades-sta", making.write_charades(tmp_path / "charades"), "--out", out) == 0
    assert "licence of the data: see its publisher" in capsys.readouterr().out


def test_pictures_inside_a_data_set_are_written_beside(tmp_path: Path) -> None:
    row = {"question": "What?", "A": "one", "B": "two", "answer": "A", "category": "x"}
    rows = [{"index": n, **row, "image": base64_text(n // 2)} for n in range(3)]
    path = write_tsv(tmp_path / "Mine.tsv", rows)
    out = tmp_path / "made" / "rl.json"
    assert run("vlmevalkit", path, "--out", out) == 0
    records = read_records(out, purpose="rl")
    files = sorted((tmp_path / "made" / "rl_media").iterdir())
    assert len(records) == 3 and len(files) == 2  # rows 0 and 1 share theirs
    assert {file.suffix for file in files} == {".png"}
    for record, sample in zip(records, LAYOUTS["vlmevalkit"](Source(path)), strict=True):
        with sample.record.images[0].open("rb") as inside:
            assert paths(record)[0].read_bytes() == inside.read()


def rows_of(folder: Path, count: int, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_image(folder / f"{number}.png", seed=number)
    rows = [rl_row(problem_id=number, images=[f"{number}.png"], **changes) for number in range(count)]
    return write_rows(folder / "all.json", rows)


def ids(out: Path) -> list:
    return [record.problem_id for record in read_records(out, purpose="rl")]


def test_a_source_is_capped_by_the_seed(tmp_path: Path) -> None:
    path, out = rows_of(tmp_path / "data", 12), tmp_path / "rl.json"
    rows = json.loads(path.read_text())
    for row in rows[8:]:
        row["data_source"] = "other"
    write_rows(path, rows)
    assert run("onethinker", path, "--out", out, "--cap", 4) == 0
    first = ids(out)
    assert first == sorted(first) and sum(name < 8 for name in first) == 4 and first[4:] == [8, 9, 10, 11]
    assert about(out)["left_out"] == {"more than the cap of its source": 4}
    assert about(out)["sources"] == {"test": 4, "other": 4}
    assert run("onethinker", path, "--out", out, "--cap", 4) == 0 and ids(out) == first
    assert run("onethinker", path, "--out", out, "--cap", 4, "--seed", 1) == 0 and ids(out) != first


def test_a_band_of_pass_rates_is_kept(tmp_path: Path) -> None:
    path, out = rows_of(tmp_path / "data", 6), tmp_path / "rl.json"

    def line(name: int, value: float, **more: object) -> dict:
        return {
            "problem_id": name,
            "values": {"accuracy": {"released": 1 - value, "standard": value}},
            **more,
        }

    rights = {0: [0, 0, 0, 0], 1: [1, 0, 0, 0], 2: [1, 1, 1, 0], 3: [1, 1, 1, 1], 4: [0, 1]}
    lines = [line(name, value) for name, values in rights.items() for value in values]
    lines += [line(0, 1.0, failed="timed out"), {"problem_id": 4, "accuracy": 0.5}]
    scored = write_rows(tmp_path / "scored.jsonl", lines, lines=True)
    assert run("onethinker", path, "--out", out, "--pass-rates", scored) == 0
    assert ids(out) == [1, 2, 4]
    assert about(out)["left_out"] == {"pass rate below 0.01": 1, "pass rate above 0.99": 1, "no pass rate": 1}
    band = "--pass-rate-low", 0.2, "--pass-rate-high", 0.5
    assert run("onethinker", path, "--out", out, "--pass-rates", scored, *band) == 0
    assert ids(out) == [1, 4]


def test_values_of_other_tasks_are_pass_rates_too(tmp_path: Path) -> None:
    path, out = making.write_charades(tmp_path / "data"), tmp_path / "rl.json"
    values = [
        {"R@0.5": {"standard": 1.0}, "mIoU": {"released": 0.6, "standard": None}},
        {"mIoU": {"standard": 0.0}},
    ]
    names = ["AB1CD_1", "AB1CD_3"]
    lines = [{"problem_id": name, "values": value} for name, value in zip(names, values, strict=True)]
    assert (
        run("charades-sta", path, "--out", out, "--pass-rates", write_rows(tmp_path / "s.json", lines)) == 0
    )
    assert ids(out) == ["AB1CD_1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "s.jsonl: holds no scored answer"),
        ('{"values": {}}', "s.jsonl: line 1: must be an object with a problem_id"),
        (
            '{"problem_id": 3, "values": {}}',
            "s.jsonl: line 1: problem_id 3: values: has none of accuracy, mIoU",
        ),
        ('{"problem_id": 3, "accuracy": 7}', "s.jsonl: line 1: problem_id 3: values: has none of"),
        ('{"problem_id": 3\n', "s.jsonl: line 1: is not JSON"),
    ],
)
def test_malformed_pass_rates_are_one_line(
    tmp_path: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.jsonl").write_text(content)
    path = making.write_charades(tmp_path / "data")
    assert run("charades-sta", path, "--out", tmp_path / "rl.json", "--pass-rates", tmp_path / "s.jsonl") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "rl.json").exists()


def test_near_duplicates_go(tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "rl.json"
    folder.mkdir()
    shape = np.kron(np.random.default_rng(0).integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1))).astype(
        np.uint8
    )
    Image.fromarray(shape).save(folder / "0.png")
    Image.fromarray(shape).resize((333, 222)).save(folder / "1.jpg", quality=60)
    Image.fromarray(shape[:, ::-1]).save(folder / "2.png")
    images = ["0.png", "1.jpg", "2.png", "1.jpg"]
    rows = [
        rl_row(problem_id=n, images=[name], problem="<image>Which  LETTER?!") for n, name in enumerate(images)
    ]
    rows[0]["problem"], rows[3]["problem"] = "<image>Which letter", "<image>Which number?"
    path = write_rows(folder / "all.json", rows)
    assert run("onethinker", path, "--out", out, "--hash-distance", 6) == 0
    assert ids(out) == [0, 2, 3]
    assert about(out)["left_out"] == {"nearly the same question about nearly the same picture": 1}
    assert run("onethinker", path, "--out", out) == 0 and ids(out) == [0, 1, 2, 3]


def test_difference_hash_by_hand() -> None:
    rising = np.tile(np.arange(0, 252, 28, dtype=np.uint8)[None, :, None], (8, 1, 3))  # 9 columns
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising[:, ::-1]) == 0
    half = rising.copy()
    half[4:] = rising[4:, ::-1]
    assert difference_hash(half).bit_count() == 32


def test_near_hashes_are_found_as_by_comparing_all() -> None:
    rng = np.random.default_rng(1)
    for distance in (0, 1, 4, 9):
        hashes = _Hashes(distance)
        kept: list[int] = []
        for _ in range(300):
            found = (
                int(rng.integers(0, 2**63))
                if not kept or rng.random() < 0.4
                else kept[rng.integers(len(kept))]
            )
            for _ in range(rng.integers(0, 2 * distance + 3)):
                found ^= 1 << int(rng.integers(64))
            near = any((found ^ other).bit_count() <= distance for other in kept)
            assert hashes.seen(found) == near
            if not near:
                kept.append(found)
        assert 50 < len(kept) < 300


def test_questions_are_compared_by_their_words(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    rows = [rl_row(), rl_row(problem="<image> which -- LETTER"), rl_row(options=["A. one", "B. three"])]
    first, second, other = read_records(write_rows(tmp_path / "a.json", rows))
    assert question_words(first) == question_words(second) != question_words(other)
    duplicates = NearDuplicates(0)
    assert [duplicates.seen(record) for record in (first, second, other)] == [False, True, False]


def test_malformed_rows_end_it_or_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = making.write_charades(tmp_path / "data"), tmp_path / "rl.json"
    path.write_text(path.read_text() + "AB1CD 7 3##backwards\n")
    assert run("charades-sta", path, "--out", out) == 1
    assert "charades_sta_test.txt: row 4 (video AB1CD): start and end: [7.0, 3.0]" in capsys.readouterr().err
    assert not out.exists()
    assert run("charades-sta", path, "--out", out, "--on-bad-record", "skip") == 0
    assert len(ids(out)) == 2 and list(about(out)["left_out"].values()) == [1]


def test_a_damaged_picture_is_counted_where_it_is_looked_at(tmp_path: Path) -> None:
    path, out = rows_of(tmp_path / "data", 3), tmp_path / "rl.json"
    (tmp_path / "data" / "1.png").write_bytes(b"no picture")
    words = "onethinker", path, "--out", out, "--hash-distance", 2
    assert run(*words) == 1
    assert run(*words, "--on-bad-record", "skip") == 0
    assert ids(out) == [0, 2] and about(out)["left_out"] == {"a picture that cannot be read": 1}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["charades", "a.txt"], 2, "layout 'charades' is not known; did you mean 'charades-sta'"),
        (["charades-sta", "gone.txt"], 1, "gone.txt: cannot be read (No such file or directory)"),
        (["refcoco", "gone.p", "--cap", "0"], 2, "cap 0 must be at least 1"),
        (["refcoco", "gone.p", "--hash-distance", "40"], 2, "hash_distance 40 must be from 0 to 31"),
        (
            ["refcoco", "gone.p", "--pass-rate-low", "0.9", "--pass-rate-high", "0.2"],
            2,
            "must be 0 <= low <= high",
        ),
    ],
)
def test_a_command_line_that_cannot_be_used(
    words: Sequence[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == status
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def masks(*found: np.ndarray, fps: float | None = None) -> TrueMasks:
    numbers = tuple(range(len(found)))
    height, width = found[0].shape
    names = tuple(map(str, numbers))
    return TrueMasks(names, numbers, tuple(map(encode_rle, found)), (height, width), fps)


def test_points_of_a_mask_are_on_it_and_beside_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        mask = np.zeros((60, 80), bool)
        for _ in range(3):
            y, x = rng.integers(0, 50), rng.integers(0, 60)
            mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
        answer = json.loads(mask_answer(masks(mask))[8:-9])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        wanted = [columns[0] / 80, rows[0] / 60, (columns[-1] + 1) / 80, (rows[-1] + 1) / 60]
        np.testing.assert_allclose(answer["boxes"], np.array(wanted) * 1000, atol=0.5)
        for name, inside in (("positive_points", True), ("negative_points", False)):
            assert points(3, 3).error(answer[name]) is None
            for x, y in answer[name]:
                assert mask[int(y * 60 / 1000), int(x * 80 / 1000)] == inside


def test_the_answer_of_masks_is_the_best_answer() -> None:
    small, large = making.video_mask(0) & making.video_mask(3), making.video_mask(12)
    answer = mask_answer(masks(small, large, small, fps=2))
    assert json.loads(answer[8:-9])["time"] == 0.5
    score = score_response(
        f"<think>a</think>{answer}",
        answer,
        problem_type="segmentation",
        data_type="video",
        variant="released",
    )
    assert score.accuracy == pytest.approx(1)


def test_a_mask_of_everything_or_nothing_has_no_answer() -> None:
    assert mask_answer(masks(np.ones((9, 9), bool))) == "" == mask_answer(masks(np.zeros((9, 9), bool)))
    dot = np.zeros((9, 9), bool)
    dot[4, 4] = True
    answer = json.loads(mask_answer(masks(dot))[8:-9])
    assert answer["positive_points"] == [[500, 500]] * 3
    assert len({*map(tuple, answer["negative_points"])}) == 3


def test_licences_are_of_layouts() -> None:
    assert set(LICENCES) <= set(LAYOUTS)
