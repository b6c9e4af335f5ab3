"""Data sets of questions about videos, and of videos to be described, in their authors' layouts, of our own making."""

import json
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.data_pipeline.making import write_video
from tests.data_pipeline.sources.making import png, write_tsv

OPTIONS = ["it rises", "it falls", "it stays"]


def film(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, [0.0, 0.5, 1.0])


def write_parquet(path: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **settings)
    return path


def write_json(path: Path, rows: list[Any], *, lines: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path


def videommmu(folder: Path) -> Path:
    """Two subjects, three tracks; two row groups with pictures in Adaptation."""
    names = ["validation_Art_1", "validation_Computer_Science_2"]
    for name, subject in zip(names, ("Art", "Engineering"), strict=True):
        film(folder / subject / f"{name}.mp4")
    shared = {"options": OPTIONS, "answer": "B", "question_type": "multiple-choice"}
    for track in ("Perception", "Comprehension"):
        rows = [{"id": name, "question": f"{track} of {name}?", **shared} for name in names]
        write_parquet(folder / track / "test-00000-of-00001.parquet", rows)
    rows = [
        {"id": names[0], "question": "What comes after <image 1>? Look at <image 1>.", **shared},
        {
            "id": names[1],
            "question": "How many?",
            "options": [],
            "answer": "['12', 'twelve']",
            "question_type": "open",
        },
    ]
    for seed, row in enumerate(rows):
        row["image"] = {"bytes": png(60 + seed), "path": f"{row['id']}.png"}
    write_parquet(folder / "Adaptation" / "test-00000-of-00001.parquet", rows, row_group_size=1)
    return folder


def mmvu(folder: Path) -> Path:
    film(folder / "videos" / "Art" / "0.mp4")
    url = "https://example.org/datasets/mmvu/resolve/main/videos/Art/0.mp4"
    metadata = {"subject": "Art", "textbook": "", "rationale": "It does.", "knowledge": []}
    shared = {"video": url, "question": "What happens?", "metadata": metadata}
    choices = dict(zip("ABCDE", [*OPTIONS, "it turns", "nothing"], strict=True))
    write_json(
        folder / "validation.json",
        [
            {
                "id": "validation_0",
                "question_type": "multiple-choice",
                "choices": choices,
                "answer": "E",
                **shared,
            },
            {
                "id": "validation_1",
                "question_type": "open-ended",
                "choices": dict.fromkeys("ABCDE", ""),
                "answer": "a fresco",
                **shared,
            },
        ],
    )
    return folder


SRT = """1
00:00:00,000 --> 00:00:00,400
<font color="white" size=".72c">Look at the</font>
<font color="white" size=".72c">sign.</font>

2
00:00:00,400 --> 00:00:00,800
Look at the sign.

3
00:00:00,800 --> 00:00:01,000
{\\an8}It <i>turns</i>.
"""


def videomme(folder: Path) -> Path:
    for name in ("spoken_one", "silent-two"):
        film(folder / "data" / f"{name}.mp4")
    (folder / "subtitle").mkdir()
    (folder / "subtitle" / "spoken_one.srt").write_text(SRT)
    rows = [
        {
            "video_id": f"00{n}",
            "duration": duration,
            "domain": "Knowledge",
            "sub_category": "Astronomy",
            "url": "https://example.org/watch",
            "videoID": name,
            "question_id": f"00{n}-1",
            "task_type": "Counting Problem",
            "question": "What happens?",
            "options": [f"{letter}. {text}" for letter, text in zip("ABC", OPTIONS, strict=True)],
            "answer": "C",
        }
        for n, name, duration in ((1, "spoken_one", "short"), (2, "silent-two", "long"))
    ]
    write_parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows)
    return folder


def video_holmes(folder: Path) -> Path:
    film(folder / "videos" / "abc-_9.mp4")
    rows = [
        {
            "video ID": "abc-_9",
            "Question ID": n,
            "Question Type": kind,
            "Question": "Who did it?",
            "Options": dict(zip("ABCDEF", [*OPTIONS, "he", "she", "they"], strict=True)),
            "Answer": "F",
            "Explanation": "They were there.",
        }
        for n, kind in ((1, "SR"), (2, "TCI"))
    ]
    write_json(folder / "test_Video-Holmes.json", rows)
    return folder


def longvideobench(folder: Path) -> Path:
    film(folder / "videos" / "xY_1.mp4")
    rows = [
        {
            "video_id": "xY_1",
            "question": "In the scene with a door, what changes?",
            "candidates": OPTIONS[:n],
            "correct_choice": n - 1,
            "topic_category": "NP-News-Programs",
            "question_category": "T2A",
            "id": f"xY_1_{n}",
            "video_path": "xY_1.mp4",
            "subtitle_path": "xY_1_en.json",
            "duration_group": 15,
            "starting_timestamp_for_subtitles": 0,
            "duration": 1.5,
            "view_count": 3,
        }
        for n in (2, 3)
    ]
    write_json(folder / "lvb_val.json", rows)
    return folder


LONG_ROWS = [
    {
        "videos": "longvila_videos/v1.mp4",
        "problem": "What happens last?\nA. it rises\nB. it falls\nC. it stays",
        "reasoning": "It falls.",
        "answer": "B",
    },
    {
        "videos": "longvila_videos/v1.mp4",
        "problem": "How many signs are there?",
        "reasoning": "I count.",
        "answer": "<answer>Therefore the final answer is: 3</answer>",
    },
]


def longvideo_reason(folder: Path, *, table: bool = False) -> Path:
    film(folder / "longvila_videos" / "v1.mp4")
    if table:
        write_parquet(folder / "data" / "test-00000-of-00001.parquet", LONG_ROWS)
    else:
        write_json(folder / "test.jsonl", LONG_ROWS, lines=True)
    return folder


def videomathqa(folder: Path) -> Path:
    film(folder / "videos" / "m1.MP4")
    (folder / "subtitles").mkdir()
    (folder / "subtitles" / "m1.srt").write_text(SRT)
    shared = {"videoID": "m1", "question_id": 5, "question": "How long is it?", "category": "Chart"}
    shared |= {"length": "short", "answer": "A", "steps": "[]"}
    texts = [f"{letter}. {n} m" for letter, n in zip("ABCDE", range(5), strict=True)]
    write_parquet(folder / "mcq" / "test-00000-of-00001.parquet", [{**shared, "options": texts}])
    pairs = [{**shared, "options": ["A. 0 m", f"B. {n} m"]} for n in (1, 2, 3)]
    write_parquet(folder / "multi_binary" / "test-00000-of-00001.parquet", pairs)
    return folder


QUESTIONS = [
    {"question": "What's the sum?", "answer": "It's 12."},
    {"question": "Whose?", "answer": "Euler's"},
]


def video_mmlu(folder: Path) -> Path:
    film(folder / "youtube_videos" / "lecture 1.mp4")
    rows = [
        {"index": n, "video": "lecture 1.mp4", "discipline": discipline, "question": written(QUESTIONS)}
        for n, discipline, written in ((0, "Math", str), (1, "physics", json.dumps))
    ]
    write_tsv(folder / "Video_MMLU_CAP.tsv", rows)
    return folder
