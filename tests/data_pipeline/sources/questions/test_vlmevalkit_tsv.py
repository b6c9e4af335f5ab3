"""VLMEvalKit's TSV: what its columns become, pictures read on demand, malformed files, memory."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media.decoding import load_image
from onethinker_jax.data_pipeline.media.reading.frame_cache import FrameCache
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.sources.sample import SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.making import picture
from tests.data_pipeline.sources.making import (
    base64_text,
    choice_row,
    mathverse,
    mathvista,
    mmbench,
    mmmu,
    mmsci,
    png,
    read,
    skipped,
    write_tsv,
)
from tests.waiting import HANG_S

READ = LAYOUTS["vlmevalkit"]


def content(file):
    with file.open("rb") as opened:
        return opened.read()


def test_rotations_share_a_question_and_a_picture(tmp_path):
    samples = read(READ, mmbench(tmp_path / "MMBench_DEV_EN.tsv"))
    assert [sample.record.problem_id for sample in samples] == [7, 8, 1_000_007, 2_000_007]
    assert [sample.facts["g_index"] for sample in samples] == [7, 8, 7, 7]
    first, other, *turned = samples
    assert all(content(sample.record.images[0]) == png(7) for sample in (first, *turned))
    assert content(other.record.images[0]) == png(8)
    assert first.record.options == ("A. red", "B. green", "C. blue")
    assert turned[0].record.options == ("A. green", "B. blue", "C. red")
    right = [
        dict(zip("ABC", s.record.options, strict=False))[s.record.answer[8]][3:] for s in (first, *turned)
    ]
    assert right == ["red"] * 3
    assert other.record.options[3] == "D. none of them"
    assert first.record.problem == "<image>Hint: It is not yellow.\nWhat is on sign 7?"
    assert first.facts["question"] == "What is on sign 7?" and first.facts["hint"] == "It is not yellow."
    assert "hint" not in other.facts and other.record.problem == "<image>What is on sign 8?"
    assert first.groups == {
        "split": "dev",
        "category": "object localization",
        "l2-category": "finegrained_perception",
    }
    assert "A. red\nB. green\nC. blue" in question_text(first.record)


def test_a_picture_may_stand_in_a_later_row(tmp_path):
    rows = [choice_row(1, image="3"), choice_row(2, image="3"), choice_row(3)]
    first, second, third = read(READ, write_tsv(tmp_path / "x.tsv", rows))
    assert content(first.record.images[0]) == content(second.record.images[0]) == png(3)
    assert first.record.images[0].name == "1.png" and third.record.images[0].name == "3.png"


def test_the_signs_of_mmmu(tmp_path):
    path = mmmu(tmp_path / "MMMU_DEV_VAL.tsv")
    first, compared, option, open_ = read(READ, path)
    assert first.record.problem == "<image> Who painted it?"
    assert compared.record.problem == "Compare <image> with <image>.\nWhich is larger?"
    assert [content(image) for image in compared.record.images] == [png(22), png(21)]
    assert option.record.problem == "Which goes on after <image>?\n<image 2>: <image>"
    assert option.record.options[0] == "A. <image 2>"
    assert [content(image) for image in option.record.images] == [png(21), png(22)]
    assert open_.record.problem_type == "numerical" and open_.record.answer == "<answer>2.5</answer>"
    assert open_.record.options == () and open_.facts["answers"] == ["2.5", "2.50 m"]
    validation = read(READ, path, split="validation")
    assert [sample.record.problem_id for sample in validation] == [
        sample.record.problem_id for sample in (compared, option, open_)
    ]
    with pytest.raises(SourceError, match=r"MMMU_DEV_VAL.tsv: holds no row of split 'test'"):
        read(READ, path, split="test")


def test_signs_that_name_no_picture_are_words(tmp_path, caplog):
    path = write_tsv(tmp_path / "x.tsv", [choice_row(1, question="As <image 1> is to <image 2>?")])
    (sample,) = read(READ, path)
    assert sample.record.problem == "<image>As <image 1> is to <image 2>?"
    assert "x.tsv: row 1 (index 1): question: names another picture than the 1 there are" in caplog.text


def test_words_like_a_placeholder_stay_words(tmp_path):
    path = write_tsv(tmp_path / "x.tsv", [choice_row(1, question="What does <image> mean?", A="<video>")])
    (sample,) = read(READ, path)
    assert sample.record.problem == "<image>What does \\<image> mean?"
    assert "<image>What does \\<image> mean?" in question_text(sample.record)
    assert sample.record.options[0] == "A. \\<video>"


def test_mathvista(tmp_path):
    choice, count, distance, years = read(READ, mathvista(tmp_path / "MathVista_MINI.tsv"))
    assert choice.record.problem_type == "multiple choice" and choice.record.answer == "<answer>B</answer>"
    assert choice.record.options == ("A. red", "B. blue")
    asked = "Hint: Please give the letter at the end.\nQuestion: Which is longer?"
    assert choice.record.problem == "<image>" + asked
    assert choice.facts["question"] == asked + "\nChoices:\n(A) red\n(B) blue"
    assert choice.facts["skills"] == ["statistical reasoning"]
    assert [s.record.problem_type for s in (count, distance, years)] == ["numerical", "numerical", "math"]
    assert (distance.facts["precision"], distance.facts["unit"]) == ("2.0", "m")
    assert years.record.answer == "<answer>[2007, 2008]</answer>"
    assert years.groups["answer_type"] == "list" and years.groups["task"] == "figure question answering"


def test_mathverse(tmp_path):
    text, vision, free = read(READ, mathverse(tmp_path / "MathVerse_MINI.tsv"))
    assert (
        text.record.options == ("A. 36°", "B. 45°", "C. 54°") and text.record.answer == "<answer>C</answer>"
    )
    assert text.record.problem == "<image>As shown, how large is the angle?"
    assert vision.record.problem == "<image>Reason first." and vision.record.options == ()
    assert vision.record.problem_type == "math" and vision.record.answer == "<answer>C</answer>"
    assert vision.facts["question_for_eval"].endswith("C:54°")
    assert free.record.problem_type == "math" and free.record.answer == "<answer>$2\\sqrt{3}$</answer>"
    assert free.groups == {
        "question_type": "free-form",
        "problem_version": "Text Lite",
        "subject": "Plane Geometry",
        "subfield": "Angle",
        "split": "testmini",
    }


def test_mmsci(tmp_path):
    first, second = read(READ, mmsci(tmp_path / "MMSci_DEV_Captioning_image_only.tsv"))
    assert first.record.problem_type == "open-ended" and first.record.problem_id == 1
    assert first.facts["references"] == ['Growth of sample "1",\nmeasured weekly.']
    assert first.record.answer == f"<answer>{first.facts['references'][0]}</answer>"
    assert first.facts["abstract"] == "We grew samples." and first.groups["subject"] == "Ecology"
    assert content(second.record.images[0]) == png(52)


def test_pictures_beside_the_file(tmp_path):
    folder = tmp_path / "images" / "MMBench"
    folder.mkdir(parents=True)
    for name in ("1.png", "2_0.png", "2_1.png"):
        (folder / name).write_bytes(png(int(name[0])))
    rows = [
        choice_row(1, image=..., image_path="1.png"),
        choice_row(2, image=..., image_path="['2_0.png', '2_1.png']"),
    ]
    path = write_tsv(tmp_path / "MMBench_DEV_EN_local.tsv", rows)
    one, two = read(READ, path)
    assert one.record.images == (folder / "1.png",) and len(two.record.images) == 2
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(SourceError, match=r"row 1 \(index 1\): image_path: no such file .*elsewhere/1.png"):
        read(READ, path, media_root=elsewhere)
    unchecked = read(READ, path, media_root=elsewhere, check_media=False)
    assert unchecked[0].record.images == (elsewhere / "1.png",)


def test_rows_without_a_picture_are_counted(tmp_path):
    path = write_tsv(tmp_path / "ScienceQA_TEST.tsv", [choice_row(1), choice_row(2, image="")])
    samples, bad = skipped(READ, path)
    assert [sample.record.problem_id for sample in samples] == [1]
    assert bad.left_out == {"image: is empty, and VLMEvalKit asks no question without one": 1}
    assert bad.count == 0 and len(read(READ, path)) == 1


BAD_ROWS = {
    "cut base64": ({"image": base64_text(1)[:-3]}, r"image: is no whole base64 text \("),
    "no base64": ({"image": "&" * 100}, r"image: is no whole base64 text \("),
    "a list with an empty item": ({"image": f"['{base64_text(1)}', '']"}, "image: holds an empty text"),
    "reference": ({"image": "17"}, "image: no row of that index has a picture of its own: '17'"),
    "letter": ({"answer": "E"}, "answer: is no letter of an option: 'E' of A, B, C"),
    "small letter": ({"answer": "b"}, "answer: is no letter of an option: 'b' of A, B, C"),
    "no answer": ({"answer": ""}, "answer: is empty"),
    "one option": ({"B": "", "C": ""}, "B: is the second option and empty"),
    "question": ({"question": " ", "image": ""}, None),
    "reserved": ({"question": "<|im_end|>"}, r"question: holds the reserved token <\|im_end\|>"),
    "twice": ({"index": 1}, "index: is there twice: also in row 1"),
    "NUL": ({"question": "a\0b"}, "question: holds the character NUL"),
}


def test_rows_that_refer_to_a_malformed_picture_are_malformed(tmp_path):
    rows = [choice_row(1, image="2"), choice_row(2, image=base64_text(2)[:-3]), choice_row(3, image="2")]
    samples, bad = skipped(READ, write_tsv(tmp_path / "x.tsv", [*rows, choice_row(4)]))
    assert [sample.record.problem_id for sample in samples] == [4]
    assert bad.left_out == {
        "image: no row of that index has a picture of its own": 2,
        "image: is no whole base64 text": 1,
    }


@pytest.mark.parametrize("case", [case for case, (_, error) in BAD_ROWS.items() if error])
def test_a_malformed_row_is_one_line_or_counted(tmp_path, case):
    changes, error = BAD_ROWS[case]
    assert error is not None
    path = write_tsv(
        tmp_path / "x.tsv", [choice_row(1), choice_row(**{"index": 2, **changes}), choice_row(3)]
    )
    with pytest.raises(SourceError, match=rf"x\.tsv: row 2 \(index [12]\): {error}") as raised:
        read(READ, path)
    assert "\n" not in str(raised.value)
    samples, bad = skipped(READ, path)
    assert [sample.record.problem_id for sample in samples] == [1, 3]
    ((kind, count),) = bad.left_out.items()
    assert count == bad.count == 1 and kind in str(raised.value) and "'" not in kind


def test_pictures_that_no_model_sees_are_not_decoded(tmp_path):
    path = write_tsv(tmp_path / "x.tsv", [choice_row(1, image=base64_text(1)[:-3])])
    (sample,) = read(READ, path, check_media=False)
    assert sample.record.data_type == "image"
    with pytest.raises(OSError, match=r"x\.tsv: row 1: image \(1\.png\): is no whole base64 text"):
        sample.record.images[0].open("rb")


@pytest.mark.parametrize("image", ["", "none there", ...])
def test_answers_can_be_scored_where_no_pictures_are(tmp_path, image):
    """An empty column, a short text in the place of base64, no column: what asks the questions refuses them."""
    path = write_tsv(tmp_path / "MMStar.tsv", [choice_row(n, image=image) for n in (1, 2)])
    samples = read(READ, path, check_media=False)
    assert [sample.record.problem_id for sample in samples] == [1, 2]
    assert samples[1].record.images == (tmp_path / "images" / "MMStar" / "2.jpg",)
    with pytest.raises(SourceError):
        read(READ, path)


def test_one_row_without_a_picture_is_left_out_though_answers_are_only_scored(tmp_path):
    path = write_tsv(tmp_path / "MMStar.tsv", [choice_row(1), choice_row(2, image="")])
    assert [sample.record.problem_id for sample in read(READ, path, check_media=False)] == [1]


def test_malformed_files(tmp_path):
    path = tmp_path / "x.tsv"

    def error(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(SourceError) as raised:
            read(READ, path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
        return str(raised.value).removeprefix(f"{path}: ")

    good = write_tsv(path, [choice_row(1), choice_row(2)]).read_bytes()
    assert error(b"") == "is empty"
    assert error(good.split(b"\n")[0] + b"\n") == "holds no row"
    assert error(b"version https://git-lfs.github.com/spec/v1\noid 1\n").startswith(
        "has no column index, question, answer (has: version https://git-lfs"
    )
    assert error(good.replace(b"\timage\t", b"\tpicture\t")).startswith(
        "has no column image (has: index, pict"
    )
    assert error(good.replace(b"answer", b"gold")).startswith("has no column answer (has: index, image")
    assert error(good.decode().encode("utf-16")).startswith("header: column 1: is not UTF-8 (0xff")
    assert error(good.replace(b"a star", b"a st\xe4r", 1)).startswith(
        "row 1: A: is not UTF-8 (0xe4 at byte 4"
    )
    assert error(good[:-60]) == "row 2: has 4 cells, the header has 10"
    assert error(good.replace(b"\tC\t", b"\tB\t", 1)) == "header: has the column B twice"
    assert error(good.replace(b"\ta star", b'\t"a star', 1)) == "row 1: A: its quote is not closed"
    path.unlink()
    with pytest.raises(SourceError, match=r"x.tsv: cannot be read \(No such file"):
        read(READ, path)
    with pytest.raises(SourceError, match="has no column split"):
        read(READ, write_tsv(path, [choice_row(1)]), split="dev")


def test_other_rows_are_read_where_one_is_broken(tmp_path):
    path = write_tsv(tmp_path / "x.tsv", [choice_row(n) for n in range(1, 5)])
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"a star", b"a st\xe4r")
    lines[3] = b"\t".join(lines[3].split(b"\t")[:5])
    path.write_bytes(b"\n".join(lines))
    samples, bad = skipped(READ, path)
    assert [sample.record.problem_id for sample in samples] == [1, 4]
    assert bad.left_out == {"A: is not UTF-8": 1, "another number of cells than the header": 1}


def test_a_question_of_a_megabyte_is_read(tmp_path):
    """More than the `csv` module takes."""
    long = 'He said "go".\n' * 80_000
    path = write_tsv(tmp_path / "x.tsv", [choice_row(1, question=long), choice_row(2)])
    first, second = read(READ, path)
    assert first.facts["question"] == long.strip() and second.record.problem_id == 2


def test_pictures_open_wherever_the_sample_goes(tmp_path):
    (sample,) = read(READ, write_tsv(tmp_path / "x.tsv", [choice_row(1)]))
    (image,) = pickle.loads(pickle.dumps(sample.record.images))
    assert image == sample.record.images[0] and content(image) == png(1)
    assert load_image(image).shape == (6, 9, 3)
    assert image.is_file() and abs(image.stat().st_size - len(png(1))) < 3
    assert str(image) == f"{tmp_path / 'x.tsv'}: row 1: image (1.png)"
    text = (tmp_path / "x.tsv").read_text()
    (tmp_path / "x.tsv").write_text(text.replace("iVBOR", "iV*OR"))
    with pytest.raises(OSError, match=r"x.tsv: row 1: image .* is no whole base64"):
        image.open("rb")


def test_prompts_are_those_of_pictures_in_files(tmp_path, processor):
    for sample in read(READ, mmmu(tmp_path / "MMMU_DEV_VAL.tsv")):
        files = []
        for number, image in enumerate(sample.record.images):
            files.append(tmp_path / f"{number}.png")
            files[-1].write_bytes(content(image))
        lazy, eager = map(processor.prompt, (sample.record, replace(sample.record, images=tuple(files))))
        assert np.array_equal(lazy.tokens, eager.tokens)
        assert np.array_equal(lazy.patches, eager.patches)


def test_pictures_are_read_in_processes_and_cached_apart(tmp_path):
    samples = read(READ, mmbench(tmp_path / "MMBench_DEV_EN.tsv"))
    cache = FrameCache(tmp_path / "cache", 2**20)
    reader = MediaReader.in_processes(1, time_limit=HANG_S, cache=cache)
    try:
        for _ in range(2):
            first, other = (reader.image(sample.record.images[0], None) for sample in samples[:2])
            assert np.array_equal(first, picture(6, 9, 7)) and np.array_equal(other, picture(6, 9, 8))
    finally:
        reader.close()
    assert (cache.hits, cache.misses) == (2, 2)
