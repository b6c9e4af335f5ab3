"""Checking a corpus: what is counted, what is refused and why, and what the page shows."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console

from onethinker_jax.data_pipeline.check.__main__ import CheckSettings, check, main
from onethinker_jax.data_pipeline.check.corpus_counts import CorpusCounts
from onethinker_jax.data_pipeline.check.inspection import MediaFacts, inspect_media
from onethinker_jax.data_pipeline.drawing.draw import TRUE
from onethinker_jax.data_pipeline.drawing.media_html import media_html
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.processor_config import MediaBounds
from onethinker_jax.data_pipeline.records.json_rows import RecordError
from onethinker_jax.data_pipeline.records.record import Record, iter_records, read_records
from tests.data_pipeline.making import (
    rl_row,
    sft_row,
    write_audio,
    write_image,
    write_rows,
    write_tokenizer,
    write_video,
)
from tests.waiting import HANG_S

LIMITS = {"fps": 2.0, "max_frames": 16, "time_limit": HANG_S}
VIDEO = {"images": ..., "videos": ["v.mp4"], "data_type": "video", "problem": "<video>When?", "options": []}
SEGMENTATION = {
    "images": ...,
    "answer": ...,
    "path": "a.png",
    "problem": "The <b>middle</b>.",
    "options": [],
    "problem_type": "segmentation",
    "solution": "",
}


def rle(height: int, width: int) -> dict:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    encoded: Any = coco_mask.encode(mask)
    return {"size": [height, width], "counts": encoded["counts"].decode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png", 64, 96)
    write_video(tmp_path / "v.mp4", [i / 8 for i in range(40)])  # 5 s
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def good_rows() -> list[dict]:
    return [
        rl_row(problem_id=1),
        rl_row(problem_id=1, data_source="test"),  # an id again
        rl_row(
            problem_id=2, problem_type="spatial grounding", options=[], answer='{"boxes": [10, 20, 500, 700]}'
        ),
        rl_row(problem_id=3, **VIDEO, problem_type="temporal grounding", answer='{"time": [1, 5.9]}'),
        rl_row(problem_id=4, **VIDEO, problem_type="tracking", answer='{"boxes": {"2": [1, 2, 300, 400]}}'),
        rl_row(problem_id=5, **SEGMENTATION, segmentation_output={"segmentation_rle": rle(64, 96)}),
        sft_row(problem_id=6, data_source="other"),
    ]


def bad_rows() -> list[tuple[dict, str]]:
    late = {**VIDEO, "problem_type": "temporal grounding", "answer": '{"time": [1, 9]}'}
    track = {**VIDEO, "problem_type": "tracking", "answer": '{"boxes": {"8": [1, 2, 300, 400]}}'}
    broken = {"size": [64, 96], "counts": "00"}
    return [
        (rl_row(images=["broken.png"]), r"images: .*broken\.png: not a readable image"),
        (rl_row(**{**VIDEO, "videos": ["sound.mp4"]}, problem_type="OCR"), r"videos: .*has no video stream"),
        (rl_row(**late), r"answer\.time: goes to 9 s, but v\.mp4 lasts 5\.0 s"),
        (rl_row(**track), r"answer\.boxes: goes to 8 s, but v\.mp4 lasts 5\.0 s"),
        (
            rl_row(**SEGMENTATION, segmentation_output={"segmentation_rle": rle(96, 64)}),
            r"segmentation_output: is 96 x 64, the picture 64 x 96",
        ),
        (
            rl_row(**SEGMENTATION, segmentation_output={"segmentation_rle": broken}),
            "segmentation_output: not a COCO RLE",
        ),
        (rl_row(problem_type="zzz"), "problem_type: unknown 'zzz'"),
    ]


@pytest.mark.parametrize(("row", "message"), bad_rows()[:4])
def test_what_only_the_media_tell(folder: Path, row: dict, message: str) -> None:
    path = write_rows(folder / "rl.json", [rl_row(), row])
    records = read_records(path)
    assert inspect_media(records[0], **LIMITS).image_sizes == ((64, 96),)
    with pytest.raises(RecordError, match=message) as caught:
        inspect_media(records[1], **LIMITS)
    assert str(caught.value).startswith(f"{path}: record 2 (problem_id 7): ")


def test_a_corpus(folder: Path) -> None:
    rows = [*good_rows(), *(row for row, _ in bad_rows())]
    path = write_rows(folder / "rl.json", rows)
    lines = write_rows(folder / "sft.jsonl", [sft_row(problem_id=9)], lines=True)
    out = folder / "out"
    settings = CheckSettings((path, lines), out=out, workers=2, time_limit=HANG_S, samples=1)
    console = Console(record=True, width=120, file=(folder / "console").open("w"))
    counts, bad = check(settings, console)
    assert counts.records == 8 and bad.count == len(bad_rows())
    assert counts.modalities == {"image": 6, "video": 2} and counts.repeated_ids == 1
    assert counts.sources == {"test": 6, "other": 1, "(none)": 1}
    assert counts.tasks["messages (image)"] == 2 and counts.tasks["tracking (video)"] == 1

    reasons = [json.loads(line)["reason"] for line in (out / "bad.jsonl").read_text().splitlines()]
    for _, message in bad_rows():
        assert len([reason for reason in reasons if re.search(message, reason)]) == 1, (message, reasons)
    written = json.loads((out / "counts.json").read_text())
    assert written["bad"] == len(bad_rows()) and written["tasks"] == dict(counts.tasks)
    assert written["lengths"]["video, seconds"] == pytest.approx(
        {"count": 2, "mean": 5, "median": 5, "p95": 5, "most": 5}, abs=1e-3
    )
    said = console.export_text()
    for text in ("8 good records, 7 bad, 1 with the problem_id", "spatial grounding (image)", "problem_type"):
        assert text in said

    page = (out / "index.html").read_text()
    assert page.count('<article class="card beside">') == len(counts.tasks) == 6
    assert (
        "<dt>Bad records</dt><dd>7, see bad.jsonl</dd>" in page and "<dt>Good records</dt><dd>8</dd>" in page
    )
    assert "The &lt;b&gt;middle&lt;/b&gt;." in page and "<b>" not in page
    assert page.count('class="span true"') == 1 and 'src="http' not in page


def test_true_answers_are_drawn(folder: Path) -> None:
    rows = [row for row in good_rows() if row["problem_id"] in (1, 2, 5)]
    plain, _, box, mask = iter_records(write_rows(folder / "rl.json", rows))
    shown = [pixels_of(media_html(view_record(record))) for record in (plain, box, mask)]
    green = [int((np.abs(pixels.astype(int) - TRUE).max(2) < 12).sum()) for pixels in shown]
    assert green[0] < 50 and min(green[1:]) > 500


def pixels_of(html: str) -> np.ndarray:
    (content,) = re.findall(r"base64,([^\"]+)", html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_the_same_samples_every_time(folder: Path) -> None:
    rows = [rl_row(problem_id=i, answer="AB"[i % 2]) for i in range(40)]
    path = write_rows(folder / "rl.json", rows)
    pages = []
    for name in ("one", "two"):
        settings = CheckSettings((path,), out=folder / name, workers=1, media=False, samples=3)
        counts, bad = check(settings, Console(quiet=True))
        assert counts.records == 40 and bad.count == 0 and not (folder / name / "bad.jsonl").exists()
        pages.append(re.findall(r"record \d+", (folder / name / "index.html").read_text()))
    assert (
        pages[0] == pages[1] and len(set(pages[0])) == 3 and pages[0] != ["record 1", "record 2", "record 3"]
    )


def test_counts_of_lengths() -> None:
    counts = CorpusCounts()
    assert counts.records == 0 and counts.to_json()["lengths"] == {}
    record = Record(1, "?", "video", "OCR", (), "<answer>x</answer>", (), (Path("v.mp4"),), "s")
    for number in range(100):
        counts.add(record, MediaFacts((), (number + 1.0,), (2,)))
    seconds = counts.to_json()["lengths"]["video, seconds"]
    assert seconds == pytest.approx({"count": 100, "mean": 50.5, "median": 50.5, "p95": 95.05, "most": 100})


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(folder / "rl.json", [rl_row()])
    common = ["--no-media", "--out", str(folder / "out"), "--workers", "1"]
    assert main([str(path), *common]) == 0 and "1 good records, 0 bad" in capsys.readouterr().out
    write_rows(path, [rl_row(), rl_row(problem=3)])
    assert main([str(path), *common]) == 1 and "1 good records, 1 bad" in capsys.readouterr().out
    assert main([str(folder / "none.json"), *common]) == 1
    assert re.fullmatch(r"error: .*none\.json: cannot be read .*\n", capsys.readouterr().err)
    assert main([str(path), "--fsp", "3"]) == 2 and "--fsp" in capsys.readouterr().err
    assert main([str(path), "--workers", "0"]) == 2 and "workers 0" in capsys.readouterr().err


def test_lengths_for_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By task, as training would have them; all records fit the settings that are printed, and no smaller ones."""
    base = write_tokenizer(folder / "base")
    rl = write_rows(folder / "rl.json", [rl_row(problem="<image>" + "word " * n) for n in (1, 5, 40)])
    film = write_rows(
        folder / "film.json", [rl_row(**VIDEO, problem_type="temporal grounding", answer='{"time": [1, 5]}')]
    )
    sft = write_rows(folder / "sft.json", [sft_row(), sft_row(answer="word " * 60)])
    out = folder / "out"
    flags = [
        "--model",
        base,
        "--max-new-tokens",
        100,
        "--image-max-pixels",
        8192,
        "--max-frames",
        8,
        "--workers",
        1,
    ]
    assert main([str(part) for part in (rl, film, sft, "--out", out, *flags)]) == 0
    said = capsys.readouterr().out

    processor = Processor.from_pretrained(base, MediaBounds(image_max_pixels=8192, video_max_frames=8))
    prompts = [processor.prompt(record) for file in (rl, film) for record in read_records(file)]
    tokens = [len(example.tokens) for example in prompts]
    rows = {row["task"]: row for row in json.loads((out / "counts.json").read_text())["model_lengths"]}
    lines = [json.loads(line) for line in (out / "lengths.jsonl").read_text().splitlines()]
    assert len(lines) == sum(row["records"] for row in rows.values())
    for what in ("tokens", "patches"):
        assert max(line[what] for line in lines) == max(row[what]["max"] for row in rows.values())
    of_prompts = sum(row["records"] for row in rows.values() if row["of"] == "prompts")
    assert sum("responses" in line for line in lines) == of_prompts
    assert rows["multiple choice (image)"]["records"] == 3
    assert rows["multiple choice (image)"]["tokens"]["max"] == max(tokens[:3])
    assert rows["multiple choice (image)"]["tokens"]["median"] == sorted(tokens[:3])[1]
    assert rows["temporal grounding (video)"]["patches"]["min"] == len(prompts[3].patches)
    assert rows["messages (image)"]["of"] == "messages"
    assert "multiple choice (image)" in said

    flags_of_rl = re.search(r"^RL, all records fit: (.*)$", said, re.MULTILINE)
    assert flags_of_rl is not None
    values = dict(re.findall(r"--([\w.-]+) ([\d.]+)", flags_of_rl[1]))
    assert 0 <= int(values["rl.rollout.prompt-tokens"]) - max(tokens) < 16
    assert 0 <= int(values["rl.batch.tokens"]) - max(tokens) - 100 < 16
    assert values["data.image-max-pixels"] == "8192" and values["data.video-max-frames"] == "8"
    longest = max(len(processor.training(record).tokens) for record in read_records(sft))
    (least,) = re.findall(r"^SFT, all records fit: --sft.batch.tokens (\d+)", said, re.MULTILINE)
    assert 0 <= int(least) - longest < 16


def test_lengths_for_what_is_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(folder / "rl.json", [rl_row()])
    arguments = [
        str(path),
        "--out",
        str(folder / "out"),
        "--workers",
        "1",
        "--model",
        "Qwen/Qwen3-VL-2B-Instruct",
    ]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "hf download Qwen/Qwen3-VL-2B-Instruct --local-dir Qwen3-VL-2B-Instruct" in line
