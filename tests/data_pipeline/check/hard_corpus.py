"""OneThinker's three files, made by hand for all tasks, with the media and texts that go wrong elsewhere."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tests.data_pipeline.making import picture, write_rows, write_video

BOX = [100, 200, 900, 800]
POINTS = {
    "positive_points": [[500, 500], [400, 400], [600, 600]],
    "negative_points": [[10, 10], [990, 10], [0, 1000]],
}


def write_hard_corpus(folder: Path) -> dict[str, Path]:
    """Writes media, `rl`, `sft` and `eval` files into the folder; their paths by name."""
    _write_images(folder)
    _write_videos(folder)
    return {
        "rl": write_rows(folder / "rl.json", _rl_rows()),
        "sft": write_rows(folder / "sft.jsonl", _sft_rows(), lines=True),
        "eval": write_rows(folder / "eval.json", _eval_rows()),
    }


def _write_images(folder: Path) -> None:
    turned = Image.fromarray(picture(60, 100))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    see_through = Image.fromarray(picture(70, 70)).convert("P")
    see_through.save(folder / "palette.png", transparency=3)
    Image.fromarray(np.dstack([picture(64, 64), picture(64, 64)[..., :1]])).save(folder / "alpha.png")
    cv2.imwrite(str(folder / "deep.png"), picture(50, 80).astype(np.uint16) * 257)
    Image.fromarray(picture(64, 96)).convert("CMYK").save(folder / "inks.jpg")
    Image.fromarray(picture(1, 1)).save(folder / "pixel.png")
    Image.fromarray(picture(3, 480)).save(folder / "line.png")
    Image.new("L", (4000, 3000), 90).save(folder / "huge.png")


def _write_videos(folder: Path) -> None:
    write_video(folder / "uneven.mp4", [0, 0.04, 0.9, 1.0, 2.2, 2.21, 3.5, 5.0])
    write_video(folder / "turned.mp4", [i / 5 for i in range(20)], turned=1)
    write_video(folder / "live.mkv", [i / 4 for i in range(24)], options={"live": "1"})
    write_video(
        folder / "open.mp4", [i / 10 for i in range(60)], gap=8, x264="open-gop=1:bframes=3:scenecut=0"
    )
    write_video(folder / "bare.h264", [i / 25 for i in range(30)])
    write_video(folder / "still.mp4", [0.0])


def _rl_row(number: int, problem_type: str, problem: str, answer: Any, *media: str, **more: Any) -> dict:
    kind = "text"
    if media:
        kind = "video" if Path(media[0]).suffix in (".mp4", ".mkv", ".h264") else "image"
    return {
        "problem_id": number,
        "problem": problem,
        "data_type": kind,
        "problem_type": problem_type,
        "options": [],
        "data_source": "by hand",
        "answer": f"<answer>{answer}</answer>",
        **({f"{kind}s": list(media)} if media else {}),
        **more,
    }


def _rl_rows() -> list[dict]:
    choice = {"options": ["(B) It says {options}", "(C) neither <answer> nor </think>"]}
    boxes = '{"boxes": {"1": [0, 0, 1000, 1000], "2": [1, 2, 3.5, 4]}}'
    annotations = str({"boxes": BOX, **POINTS}).replace("'", '"')
    timed = str({"time": 2.5, "boxes": BOX, **POINTS}).replace("'", '"')
    rows = [
        ("multiple choice", "<image>Which {question}?", "C", "turned.jpg"),
        ("multiple choice", "<video>Which?", "B", "uneven.mp4"),
        ("multiple choice", "Which of {these} <b>?", "C"),
        (
            "numerical",
            "In <image>, and in <image>\n\nتحقق 中文 🦊 e\u0301?",
            "1,234.50",
            "pixel.png",
            "line.png",
        ),
        ("numerical", "<video>\r\nHow many?", "-3", "turned.mp4"),
        ("numerical", "كم\r\n<imag e>?", "1e3"),
        ("regression", "<image> How old?", "42", "palette.png"),
        ("regression", "<video> How fast?", "0.7", "live.mkv"),
        ("regression", "How far?", "384400"),
        ("OCR", "<image>Read.", "a < b / c > d", "deep.png"),
        ("OCR", "<video>Read.", "Straße", "open.mp4"),
        ("math", r"<image>Solve $\frac{a}{b} = \{x\}$.", r"$\dfrac{-3}{2}$", "inks.jpg"),
        ("math", "<video>Solve.", "x = 2", "bare.h264"),
        ("math", r"Solve $\frac{x}{2} < 3$.", r"$x < 6$"),
        ("open-ended", "<image>Describe it.", "A grey plane, without end.", "huge.png"),
        ("open-ended", "<video>Describe it.", 'It says "no".', "still.mp4"),
        ("open-ended", "Why is the sky blue? 天空", "Ü < scattering >"),
        ("temporal grounding", "<video>When?", '{"time": [0, 5.9]}', "live.mkv"),
        ("spatial grounding", "<image>Where?", f'{{"boxes": {BOX}}}', "alpha.png"),
        (
            "spatial-temporal grounding",
            "<video>When and where?",
            f'{{"time": [0.5, 2.5], "boxes": {{"1": {BOX}, "2": {BOX}}}}}',
            "uneven.mp4",
        ),
        ("tracking", "<video>Follow it.", boxes, "turned.mp4"),
        ("segmentation", "<image>The hole.", annotations, "palette.png"),
        ("segmentation", "<video>The hole.", timed, "open.mp4"),
    ]
    return [
        _rl_row(number, *row, **(choice if row[0] == "multiple choice" else {}))
        for number, row in enumerate(rows)
    ]


def _sft_rows() -> list[dict]:
    both = [
        {"role": "system", "content": "Answer in two words.\n"},
        {"role": "user", "content": "Is <image> in <video>?"},
        {"role": "assistant", "content": "<think>\n\n</think><answer>it is</answer>"},
        {"role": "user", "content": "And <image>?"},
        {"role": "assistant", "content": "<think>no</think>\n\n<answer>it isn't</answer>\n"},
    ]
    one = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "<answer>7</answer>"}]
    return [
        {"messages": both, "images": ["pixel.png", "huge.png"], "videos": ["uneven.mp4"], "problem_id": "é"},
        {"messages": one, "images": ["line.png"], "problem_type": "numerical", "data_type": "image"},
        {"messages": [{"role": "user", "content": "中?"}, one[1]], "images": [], "videos": None},
    ]


def _eval_rows() -> list[dict]:
    mask = np.zeros((100, 60), np.uint8, order="F")
    mask[20:40, 10:30] = 1
    encoded: Any = coco_mask.encode(mask)
    rle = {"size": [100, 60], "counts": encoded["counts"].decode()}
    empty = {"size": [64, 96], "counts": [64 * 96]}
    segmentation = {"problem": "The box.", "problem_type": "segmentation", "solution": ""}
    return [
        {
            "problem_id": 1,
            "problem": "Which is shown?",
            "data_type": "video-image",
            "problem_type": "multiple choice",
            "options": ["one", "two"],
            "solution": "<answer>B</answer>",
            "path": "live.mkv",
            "additional_path": "turned.jpg",
        },
        {
            "problem_id": 4,
            "problem": "Which is it?",
            "data_type": "text",
            "problem_type": "multiple choice",
            "options": ["one", "two"],
            "solution": "A",
            "path": "",
        },
        {
            **segmentation,
            "problem_id": 2,
            "data_type": "image",
            "path": "turned.jpg",
            "segmentation_output": {"segmentation_rle": rle},
            "resolution": {"width": 60, "height": 100},
        },
        {
            **segmentation,
            "problem_id": 3,
            "data_type": "video",
            "path": "open.mp4",
            "segmentation_output": {"segmentation_rle": {"0": empty, "1": empty}, "frames": ["0", "1"]},
            "resolution": {"width": 96, "height": 64},
            "fps": 10,
        },
    ]
