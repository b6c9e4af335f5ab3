"""Files of every public layout of questions and captions, of our own making: tiny media and made-up words."""

import base64
import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Layout, Sample, Source
from tests.data_pipeline.making import picture


def png(seed: int, height: int = 6, width: int = 9) -> bytes:
    """A PNG of noise; each seed another one."""
    buffer = io.BytesIO()
    Image.fromarray(picture(height, width, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def base64_text(seed: int, **size: int) -> str:
    return base64.b64encode(png(seed, **size)).decode()


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """As pandas' `to_csv(sep="\\t", index=False)` writes it; a column that a row lacks is an empty cell."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return path


def choice_row(index: int | str, *, seed: int | None = None, **changes: Any) -> dict[str, Any]:
    """A row as MMStar, ScienceQA, AI2D and MMBench have it."""
    row = {
        "index": index,
        "image": base64_text(index if isinstance(index, int) else seed or 0),
        "question": f"What is on sign {index}?",
        "A": "a star",
        "B": "a moon",
        "C": "a sun",
        "D": "",
        "answer": "B",
        "category": "object localization",
        "l2-category": "finegrained_perception",
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


def mmbench(path: Path) -> Path:
    """Two questions, the first in all three rotations of its options, whose later rows refer to its picture."""
    options = ["red", "green", "blue"]
    rows = []
    for turn in range(3):
        turned: dict[str, Any] = dict(zip("ABC", options[turn:] + options[:turn], strict=True))
        rows.append(
            choice_row(
                7 + turn * 1_000_000,
                image=base64_text(7) if turn == 0 else "7",
                answer="ABC"[-turn],
                hint="It is not yellow." if turn == 0 else "",
                split="dev",
                **turned,
            )
        )
    rows.insert(1, choice_row(8, D="none of them", answer="D", split="dev"))
    return write_tsv(path, rows)


def mmmu(path: Path) -> Path:
    """One picture, two pictures with signs, a sign in an option, an open question; dev and validation."""
    two = str([base64_text(21), base64_text(22)])
    return write_tsv(
        path,
        [
            choice_row("dev_Art_1", seed=20, question="<image 1> Who painted it?", split="dev", answer="A"),
            choice_row(
                "validation_Math_2",
                image=two,
                question="Compare <image 2> with <image 1>.\nWhich is larger?",
                split="validation",
                category="Math",
            ),
            choice_row(
                "validation_Math_3",
                image=two,
                question="Which goes on after <image 1>?",
                A="<image 2>",
                split="validation",
                answer="A",
            ),
            choice_row(
                "validation_Physics_4",
                seed=24,
                question="How long is <image 1>, in m?",
                **dict.fromkeys("ABC", ""),
                answer="['2.5', '2.50 m']",
                split="validation",
            ),
        ],
    )


def mathvista(path: Path) -> Path:
    hint = "Hint: Please give the letter at the end.\nQuestion: Which is longer?\nChoices:\n(A) red\n(B) blue"
    shared = {
        "task": "figure question answering",
        "category": "general-vqa",
        "skills": "['statistical reasoning']",
    }
    rows = [
        {
            "question": hint,
            "question_type": "multi_choice",
            "answer_type": "text",
            "choices": "['red', 'blue']",
            "answer": "blue",
            "answer_option": "B",
        },
        {
            "question": "Hint: an integer.\nQuestion: How many?",
            "question_type": "free_form",
            "answer_type": "integer",
            "answer": "12",
        },
        {
            "question": "How far?",
            "question_type": "free_form",
            "answer_type": "float",
            "answer": "1.20",
            "precision": "2.0",
            "unit": "m",
        },
        {
            "question": "Which years?",
            "question_type": "free_form",
            "answer_type": "list",
            "answer": "[2007, 2008]",
        },
    ]
    rows = [{"index": n, "image": base64_text(30 + n), **row, **shared} for n, row in enumerate(rows, 1)]
    return write_tsv(path, rows)


def mathverse(path: Path) -> Path:
    metadata = str({"split": "testmini", "source": "made", "subject": "Plane Geometry", "subfield": "Angle"})
    choices = "As shown, how large is the angle?\nChoices:\nA:36°\nB:45°\nC:54°"
    rows = [
        {
            "question": choices,
            "question_type": "multi-choice",
            "answer": "C",
            "problem_version": "Text Dominant",
        },
        {"question": "", "question_type": "multi-choice", "answer": "C", "problem_version": "Vision Only"},
        {
            "question": "Find the area.",
            "question_type": "free-form",
            "answer": "$2\\sqrt{3}$",
            "problem_version": "Text Lite",
        },
    ]
    rows = [
        {
            "index": n,
            "image": base64_text(40 + n),
            "query_cot": f"Reason first. {row['question']}",
            "question_for_eval": choices if n < 3 else "Find the area.",
            "metadata": metadata,
            **row,
        }
        for n, row in enumerate(rows, 1)
    ]
    return write_tsv(path, rows)


def mmsci(path: Path) -> Path:
    return write_tsv(
        path,
        [
            {
                "index": n,
                "image_id": f"figure_{n}",
                "image": base64_text(50 + n),
                "question": f"Write a caption for figure {n}.",
                "caption": f'Growth of sample "{n}",\nmeasured weekly.',
                "abstract": "We grew samples.",
                "subject": "Ecology",
                "category": "Biology",
            }
            for n in (1, 2)
        ],
    )


def read(layout: Layout, path: Path, **settings: Any) -> list[Sample]:
    return list(layout(Source(path, **settings)))


def skipped(layout: Layout, path: Path, **settings: Any) -> tuple[list[Sample], BadRecords]:
    """The good samples, and where the others are counted."""
    bad = BadRecords("skip")
    return list(layout(Source(path, bad=bad, **settings))), bad
