"""What a teacher is sent: images, frames with their times, the question."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, request_messages
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import read_records
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_video


def sent(row: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    (record,) = read_records(write_rows(folder / "rows.json", [row]))
    return request_messages(record, MediaReader(), SentMedia(video_max_frames=3, image_max_pixels=64 * 64))


def pixels_of(part: dict[str, Any]) -> np.ndarray:
    head, _, data = part["image_url"]["url"].partition(",")
    assert part["type"] == "image_url" and head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_images_are_sent_in_their_places(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 64, 64, seed=1)
    write_image(tmp_path / "b.png", 256, 128)
    row = rl_row(images=["a.png", "b.png"], problem="<image>This one?<image>Or that one?")
    system, user = sent(row, tmp_path)
    assert system["role"] == "system" and "the letter of the right option" in system["content"]
    first, this, second, that = user["content"]
    original = np.asarray(Image.open(tmp_path / "a.png"), float)
    assert np.abs(pixels_of(first) - original).mean() < 6 and pixels_of(second).shape == (64, 32, 3)
    assert this == {"type": "text", "text": "This one?"}
    assert that["text"].startswith("Or that one?\nA. one\nB. two\nThink in <think>")


def test_frames_are_sent_with_their_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [0.0, 0.4, 1.1, 2.0, 3.7, 3.9])
    row = rl_row(images=..., videos=["v.mp4"], data_type="video", problem="<video>When?", options=[])
    row |= {"problem_type": "temporal grounding", "answer": '{"time": [1, 2]}'}
    system, user = sent(row, tmp_path)
    assert '{"time": [3.5, 9.0]}' in system["content"]
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    frames = [pixels_of(part) for part in user["content"] if part["type"] == "image_url"]
    video = MediaReader().video(tmp_path / "v.mp4", None, fps=2.0, max_frames=3)
    assert texts[0] == f"A video of {video.duration:.1f} seconds, 3 frames:" and texts[-1].startswith(
        "When?\n"
    )
    assert texts[1:-1] == [f"<{time:.1f} seconds>" for time in video.timestamps] and len(frames) == 3
    for frame, true in zip(frames, video.frames, strict=True):
        assert abs(frame.mean() - true.mean()) < 4


def test_rows_of_other_layouts_are_asked_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    row = sft_row(problem_id=1, problem_type="OCR", answer="A star.")
    _, user = sent(row, tmp_path)
    assert [part.get("text") for part in user["content"]] == [None, "What is it?"]
    row = rl_row(images=..., path="a.png", problem="Which?", answer=..., solution="A")
    _, user = sent(row, tmp_path)
    assert user["content"][0]["type"] == "image_url" and user["content"][1]["text"].startswith("Which?")
