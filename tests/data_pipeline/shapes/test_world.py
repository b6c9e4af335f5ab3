"""The Shapes world: same bytes and pixels each time, every task, answers that the media confirm."""

import hashlib
import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.records.record import read_records, task_of
from onethinker_jax.data_pipeline.shapes import random_scenes, rendering
from onethinker_jax.data_pipeline.shapes.questions import ask_task
from onethinker_jax.data_pipeline.shapes.rendering import INK
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES
from onethinker_jax.data_pipeline.shapes.stamps import text_stamp
from onethinker_jax.data_pipeline.shapes.world import VERSION, ShapesWorld, build_shapes_world
from onethinker_jax.data_pipeline.worlds.masks import mask_box
from onethinker_jax.data_pipeline.worlds.world import WorldError
from onethinker_jax.rewards import max_accuracy, score_response
from onethinker_jax.tasks import TASKS, Task

SIZES: dict[str, Any] = {"seed": 11, "train_rl": 150, "train_sft": 250, "heldout": 100}

SHAPES_TASKS = {task for task in TASKS if task.medium != "text"}  # every question is about a scene


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_shapes_world(tmp_path_factory.mktemp("world") / "shapes", processes=1, **SIZES)


@pytest.fixture(scope="module")
def records(world):
    return {name: read_records(getattr(world, f"{name}_json")) for name in ("rl", "sft", "eval")}


def everything(records):
    return [record for split in records.values() for record in split]


def inner(record) -> str:
    return record.answer.removeprefix("<answer>").removesuffix("</answer>")


def first_match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def pixels(record) -> np.ndarray:
    return np.asarray(Image.open(record.images[0]))


def decode(path) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [N, H, W, 3] and their presentation times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), np.array([float(f.time) for f in frames])


def coloured(frame: np.ndarray, colour: str) -> np.ndarray:
    """bool [H, W]: pixels that a lossy video shows nearest to this colour."""
    palette = np.array([*COLOURS.values(), (128, 128, 128), INK], float)
    distance = ((frame[..., None, :].astype(float) - palette) ** 2).sum(-1)
    return distance.argmin(-1) == list(COLOURS).index(colour)


def patch(frame: np.ndarray, colour: str) -> np.ndarray:
    """bool [H, W]: the largest connected part of them (blurred edges may show a third colour)."""
    close = coloured(frame, colour)
    _, parts, numbers, _ = cv2.connectedComponentsWithStats(close.astype(np.uint8))
    return (parts == 1 + numbers[1:, cv2.CC_STAT_AREA].argmax()) if len(numbers) > 1 else close


def overlap(one: list, other: list) -> float:
    """IoU of two xyxy boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    return both / sum(((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)), -both)


def test_files_have_the_asked_sizes_and_the_mix(world, records):
    assert [len(records[name]) for name in ("rl", "sft", "eval")] == [150, 250, 100]
    for split in records.values():
        assert Counter(map(task_of, split)).keys() == SHAPES_TASKS
    shares: dict[Task, float] = defaultdict(float)
    for (_, task), count in ShapesWorld(**SIZES).task_counts(10_000).items():
        shares[task] += count / 10_000
    assert min(shares.values()) >= 0.039 and math.isclose(sum(shares.values()), 1)


def test_the_records_are_those_of_this_version(records):
    """Who changes them raises VERSION, so that no older folder is taken for the same; and then this."""
    said = [
        (
            record.problem,
            record.options,
            record.answer,
            record.messages,
            record.segmentation and record.segmentation.rles,
        )
        for record in everything(records)
        if record.data_source == "shapes_shapes"  # prints depend on Pillow's font
    ]
    digest = hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()
    assert (VERSION, digest[:16]) == (10, "3bf189bffa8e7669")


def test_scenes_are_shared_by_records_but_not_by_files(records):
    media = {name: {str((r.images + r.videos)[0]) for r in split} for name, split in records.items()}
    for name, split in records.items():
        assert len(media[name]) < len(split) / 2
    assert not media["rl"] & media["eval"] and not media["sft"] & media["eval"]
    prints = {name: {hashlib.sha256(Path(p).read_bytes()).digest() for p in media[name]} for name in media}
    assert not (prints["rl"] | prints["sft"]) & prints["eval"]


def test_same_settings_give_the_same_bytes_and_pixels_however_many_processes(world, tmp_path):
    again = build_shapes_world(tmp_path / "again", processes=2, **SIZES)
    for name in ("rl_json", "sft_json", "eval_json"):
        assert getattr(world, name).read_bytes() == getattr(again, name).read_bytes()
    images, videos = (sorted((world.directory / kind).iterdir()) for kind in ("images", "videos"))
    assert len(images) + len(videos) >= 100  # enough for the pool to be used
    for path in images:
        assert path.read_bytes() == (again.directory / "images" / path.name).read_bytes()
    for path in videos[::2]:
        np.testing.assert_array_equal(decode(path)[0], decode(again.directory / "videos" / path.name)[0])


def test_another_seed_gives_other_scenes():
    draw = [
        random_scenes.image_scene(random.Random(f"{seed}/rl/image/shapes/0"), "shapes") for seed in (1, 2)
    ]
    assert draw[0] != draw[1]


def test_an_identical_folder_is_used_again_and_another_one_replaced(tmp_path):
    small: dict[str, Any] = {"seed": 3, "train_rl": 8, "train_sft": 8, "heldout": 8}
    path = tmp_path / "shapes"
    first = build_shapes_world(path, **small)
    stamp = first.rl_json.stat().st_mtime_ns
    assert build_shapes_world(path, **small) == first and first.rl_json.stat().st_mtime_ns == stamp
    build_shapes_world(path, **{**small, "seed": 4})
    assert first.rl_json.stat().st_mtime_ns != stamp
    assert [entry.name for entry in tmp_path.iterdir()] == ["shapes"]


def test_a_folder_of_something_else_is_refused_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("dear")
    with pytest.raises(WorldError, match="mine"):
        build_shapes_world(other, seed=1, train_rl=4, train_sft=4, heldout=4)
    assert (other / "thesis.txt").read_text() == "dear"

    def fail(scene, path):
        raise OSError("disk full")

    monkeypatch.setattr(rendering, "write_png", fail)
    with pytest.raises(OSError, match="disk full"):
        build_shapes_world(tmp_path / "new", seed=1, train_rl=30, train_sft=4, heldout=4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_bad_sizes_are_errors(tmp_path):
    with pytest.raises(ValueError, match="heldout"):
        build_shapes_world(tmp_path / "x", seed=1, train_rl=4, train_sft=4, heldout=0)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_true_answers_score_in_full(records, variant):
    for record in everything(records):
        response = f"<think>I look.</think>\n{record.answer}"
        if record.messages is not None:
            response = record.messages[-1]["content"]
        kind = {"problem_type": record.problem_type, "data_type": record.data_type}
        score = score_response(response, record.answer, variant=variant, **kind)
        assert score.format == 1, response
        assert score.accuracy == pytest.approx(max_accuracy(variant=variant, **kind)), (response, record)


def test_sft_rows_ask_in_the_words_of_prompts_and_think_briefly(records):
    for record in records["sft"]:
        user, assistant = record.messages
        assert user["content"] == question_text(record)
        assert re.fullmatch(r"<think>[^<>]+</think>\n<answer>[^<>]+</answer>", assistant["content"])
        assert assistant["content"].endswith(record.answer)
        thinking = assistant["content"].split("</think>")[0]
        assert 3 <= len(thinking.split()) <= 56, thinking


def test_structured_answers_keep_the_schema(records):
    for record in everything(records):
        if record.problem_type not in (
            "tracking",
            "spatial-temporal grounding",
            "segmentation",
            "spatial grounding",
        ):
            continue
        answer = json.loads(inner(record))
        boxes = answer["boxes"].values() if isinstance(answer["boxes"], dict) else [answer["boxes"]]
        for x1, y1, x2, y2 in boxes:
            assert all(isinstance(v, int) for v in (x1, y1, x2, y2))
            assert 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000
        if record.problem_type == "spatial-temporal grounding":
            start, end = answer["time"]
            inside = [s for s in range(7) if start <= s <= end]
            assert [int(key) for key in answer["boxes"]] in (
                inside,
                inside[:-1],
            )  # the last may have no frame
        if record.problem_type == "tracking":
            assert [int(key) for key in answer["boxes"]] == list(range(1, len(answer["boxes"]) + 1))
        if record.problem_type == "segmentation":
            assert len(answer["positive_points"]) == len(answer["negative_points"]) == 3


def test_image_boxes_masks_and_points_fit_the_pixels(records):
    seen = Counter()
    for record in everything(records):
        if record.data_type != "image":
            continue
        named = re.search(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b", record.problem)
        if record.problem_type not in ("spatial grounding", "segmentation") or named is None:
            continue
        answer, frame = json.loads(inner(record)), pixels(record)
        same = (frame == COLOURS[named[1]]).all(-1)
        parts = cv2.connectedComponents(same.astype(np.uint8))[1]
        height, width = same.shape
        boxes = {tuple(mask_box(parts == i)): i for i in range(1, parts.max() + 1)}
        assert parts.max() > 1 or tuple(answer["boxes"]) in boxes
        seen[record.problem_type] += tuple(answer["boxes"]) in boxes
        if record.segmentation is not None:
            mask = coco_mask.decode(record.segmentation.rles[0])
            assert mask.shape == (height, width) and mask_box(mask.astype(bool)) == answer["boxes"]
            assert same[mask.astype(bool)].all()
            for points, wanted in ((answer["positive_points"], 1), (answer["negative_points"], 0)):
                assert all(mask[int(y * height / 1000), int(x * width / 1000)] == wanted for x, y in points)
            seen["mask"] += 1
    assert seen["spatial grounding"] >= 8 and seen["segmentation"] >= 8 and seen["mask"] >= 8


def test_counts_and_choices_fit_the_pixels(records):
    seen = Counter()
    for record in everything(records):
        if record.data_type != "image" or record.problem_type not in ("numerical", "multiple choice", "OCR"):
            continue
        frame = pixels(record)
        areas = {
            c: cv2.connectedComponents((frame == rgb).all(-1).astype(np.uint8))[0] - 1
            for c, rgb in COLOURS.items()
        }
        colour = re.search(rf"How many ({'|'.join(COLOURS)}) objects", record.problem)
        if "How many objects are there?" in record.problem:
            assert sum(areas.values()) >= int(inner(record)) >= sum(count > 0 for count in areas.values())
            seen["all"] += sum(areas.values()) == int(inner(record))
        elif colour:
            assert areas[colour[1]] >= int(inner(record)) >= (areas[colour[1]] > 0)
            seen["colour"] += 1
        elif "What colour" in record.problem:
            chosen = next(option for option in record.options if option[0] == inner(record))
            assert areas[chosen[3:]] >= 1
            seen["choice"] += 1
        elif record.problem_type == "OCR" and len(inner(record).split()) == 1:
            ink = (frame == INK).all(-1)
            found = [
                cv2.matchTemplate(ink.astype(np.float32), stamp.astype(np.float32), cv2.TM_SQDIFF).min() < 0.5
                for stamp in (text_stamp(inner(record), height) for height in (26, 28, 30))
                if stamp.shape[0] <= ink.shape[0] and stamp.shape[1] <= ink.shape[1]
            ]
            assert any(found)
            seen["read"] += 1
    assert min(seen[kind] for kind in ("all", "colour", "choice", "read")) >= 2


def test_answers_are_not_constant(records):
    for task in SHAPES_TASKS:
        answers = Counter(inner(record) for record in everything(records) if task_of(record) == task)
        assert max(answers.values()) <= 0.6 * sum(answers.values()), (task, answers.most_common(3))
    letters = Counter(inner(r) for r in everything(records) if r.problem_type == "multiple choice")
    assert set(letters) == set("ABCD") and max(letters.values()) < 0.45 * sum(letters.values())


# ---------------------------------------------------------------- videos, against their decoded frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos whose objects all differ in colour and never touch, so that their pixels tell them apart."""
    folder, found, seed = tmp_path_factory.mktemp("clips"), [], 0
    while len(found) < 12:
        seed += 1
        scene = random_scenes.video_scene(random.Random(seed), "shapes")
        whole = all(
            scene.visible_share(i, t) == 1
            for t in scene.times
            for i, shape in enumerate(scene.shapes)
            if shape.present(t)
        )
        if whole and len({shape.colour for shape in scene.shapes}) == len(scene.shapes):
            rendering.write_mp4(scene, folder / f"{seed}.mp4")
            found.append((scene, *decode(folder / f"{seed}.mp4")))
    return found


def test_video_frames_come_at_their_times(clips):
    for scene, frames, times in clips:
        assert frames.shape == (round(scene.duration * scene.fps), scene.height, scene.width, 3)
        np.testing.assert_allclose(times, np.arange(len(times)) / scene.fps, atol=1e-3)
        clean = np.stack([rendering.render(scene, t) for t in scene.times]).astype(float)
        assert np.abs(frames - clean).mean() < 6


@pytest.mark.parametrize("problem_type", ["temporal grounding", "spatial-temporal grounding"])
def test_spans_and_tubes_fit_the_frames(clips, problem_type):
    seen = 0
    for number, (scene, frames, times) in enumerate(clips):
        question = ask_task(scene, problem_type, random.Random(number))
        if question is None or "visible" not in question.problem:
            continue
        colour = first_match(rf"({'|'.join(COLOURS)}) ", question.problem)
        there = times[[patch(frame, colour).sum() >= 20 for frame in frames]]
        answer = json.loads(question.answer)
        start, end = answer["time"]
        assert abs(there[0] - start) < 0.01
        assert abs(there[-1] - end) < 0.01 or (end == scene.duration and there[-1] == times[-1])
        for second, box in answer.get("boxes", {}).items():
            frame = frames[np.abs(times - int(second)).argmin()]
            assert overlap(box, mask_box(patch(frame, colour))) > 0.7
        seen += 1
    assert seen >= 5


def test_tracks_fit_the_frames(clips):
    seen = 0
    for number, (scene, frames, times) in enumerate(clips):
        question = ask_task(scene, "tracking", random.Random(number))
        if question is None:
            continue
        first = json.loads(first_match(r"(\[.*?\])", question.problem))
        scale = np.array([scene.width, scene.height] * 2) / 1000
        x1, y1, x2, y2 = np.round(np.array(first) * scale).astype(int)
        inside = Counter({c: int(patch(frames[0][y1:y2, x1:x2], c).sum()) for c in COLOURS})
        colour = inside.most_common(1)[0][0]
        for second, box in json.loads(question.answer)["boxes"].items():
            frame = frames[np.abs(times - int(second)).argmin()]
            assert overlap(box, mask_box(patch(frame, colour))) > 0.7
        seen += 1
    assert seen >= 5


def test_video_masks_fit_the_frames_and_the_answer(records):
    rows = [r for r in everything(records) if str(task_of(r)) == "segmentation (video)" and r.segmentation]
    assert len(rows) >= 6
    for record in rows:
        frames, times = decode(record.videos[0])
        masks, answer = record.segmentation, json.loads(inner(record))
        assert masks.whole and len(masks.rles) == len(frames)
        assert masks.fps == pytest.approx(len(times) / (times[-1] + times[1]))
        np.testing.assert_allclose(masks.times, times, atol=0.5 / masks.fps)
        key = coco_mask.decode(masks.rles[np.abs(times - answer["time"]).argmin()])
        assert mask_box(key.astype(bool)) == answer["boxes"]
        colour = first_match(rf"({'|'.join(COLOURS)}) ", record.problem)
        for frame, rle in zip(frames, masks.rles, strict=True):
            mask = coco_mask.decode(rle).astype(bool)
            assert mask.sum() < 30 or coloured(frame, colour)[mask].mean() > 0.6


def test_moments_are_counted_right(clips):
    seen = 0
    for number, (scene, frames, times) in enumerate(clips):
        for draw in range(6):
            question = ask_task(scene, "numerical", random.Random(100 * number + draw))
            if question is None or "visible at" not in question.problem:
                continue
            moment = float(first_match(r"visible at ([\d.]+) seconds", question.problem))
            frame = frames[np.abs(times - moment).argmin()]
            assert sum(patch(frame, colour).sum() >= 20 for colour in COLOURS) == int(question.answer)
            seen += 1
    assert seen >= 5
