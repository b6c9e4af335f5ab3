"""The Photos world: every task, answers that the pixels confirm, a split by identity, the same bytes each time."""

import json
import random
import re
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.photos.__main__ import main
from onethinker_jax.data_pipeline.photos.library import Library, LibraryError
from onethinker_jax.data_pipeline.photos.own_folder import library_of_folder
from onethinker_jax.data_pipeline.photos.packages import __main__ as packages
from onethinker_jax.data_pipeline.photos.questions.captions import short_form
from onethinker_jax.data_pipeline.photos.scenes.pools import Pools
from onethinker_jax.data_pipeline.photos.world import PhotosWorld
from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.records.record import read_records, task_of
from onethinker_jax.data_pipeline.worlds.building import build_world
from onethinker_jax.data_pipeline.worlds.masks import mask_box
from onethinker_jax.data_pipeline.worlds.world import Job, WorldError
from onethinker_jax.rewards import max_accuracy, score_response
from onethinker_jax.tasks import TASKS
from tests.data_pipeline.photos.conftest import SIDES, SIZES
from tests.data_pipeline.photos.drawn_library import colour_of, draw_library


def everything(records):
    """The records that ask; captions only describe."""
    return [record for file in records.values() for record in file if record.data_source != "photos_captions"]


def inner(record) -> str:
    return record.answer.removeprefix("<answer>").removesuffix("</answer>")


def decode(path) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [N, H, W, 3] and their presentation times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), np.array([float(f.time) for f in frames])


def scenes(world, count: int, *, split: str = "sft"):
    """Scenes of every kind that the world makes for a split, `count` of each kind and medium."""
    kinds = {(job.data_type, job.kind) for job in world.jobs() if job.split == split}
    for data_type, kind in sorted(kinds):
        for number in range(count):
            job = Job(world.seed, split, "sft", data_type, kind, number, ())
            yield world.draw(job, random.Random(f"test/{split}/{data_type}/{kind}/{number}"))


def near(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels that a lossy picture shows as this colour."""
    return np.abs(pixels.astype(int) - colour.astype(int)).max(-1) < 45


def test_files_have_the_asked_sizes_and_every_task(records):
    assert [len(records[name]) for name in ("sft", "rl", "eval")] == [140, 120, 240]
    wanted = {task for task in TASKS if task.medium != "text"}
    for file in records.values():
        assert Counter(map(task_of, file)).keys() == wanted


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
    for record in everything({"sft": records["sft"]}):
        user, assistant = record.messages
        assert user["content"] == question_text(record)
        assert re.fullmatch(r"<think>[^<>]+</think>\n<answer>[^<>]+</answer>", assistant["content"])
        assert 3 <= len(assistant["content"].split("</think>")[0].split()) <= 80


def test_captions_describe_every_kind_of_scene(records):
    captions = [record for record in records["sft"] if record.data_source == "photos_captions"]
    assert len(captions) == SIZES["captions"]
    problems = Counter(record.problem.partition(">")[2] for record in captions)
    wanted = {
        "What does the photograph show?",
        "What is shown, and when?",
        "Read all plates.",
        "Read all digits.",
    }
    assert wanted <= set(problems)
    for record in captions:
        assert "<" not in record.messages[1]["content"] and record.messages[1]["content"].endswith(".")


def test_answers_are_not_constant(records):
    letters = Counter(inner(r) for r in everything(records) if r.problem_type == "multiple choice")
    assert set(letters) == set("ABCD") and max(letters.values()) < 0.5 * sum(letters.values())
    for task in {task_of(record) for record in everything(records)}:
        answers = Counter(inner(record) for record in everything(records) if task_of(record) == task)
        assert max(answers.values()) <= 0.6 * sum(answers.values()), (task, answers.most_common(3))


def test_a_mask_is_where_the_alpha_is(world, library):
    """The pixels of a mask are the cut-out's own, but for its soft edge; outside they are the photograph's."""
    seen = 0
    for scene in scenes(world, 6):
        if scene.kind not in ("objects", "herd"):
            continue
        time = scene.times[len(scene.times) // 2]
        frame, backdrop = (
            scene.render(time),
            scene.backdrop[min(round(time * scene.fps), len(scene.backdrop) - 1)],
        )
        covered = np.zeros(frame.shape[:2], bool)
        for index, sprite in enumerate(scene.sprites):
            mask = scene.visible_mask(index, time)
            assert mask.any() == sprite.present(time) or scene.visible_share(index, time) == 0
            if mask.sum() > 200:
                assert near(frame, colour_of(library, sprite.name))[mask].mean() > 0.8
                seen += 1
            covered |= mask
        others = (frame.astype(int) - backdrop).max(-1) > 60  # brighter than the photograph: no shadow
        assert not others[~covered].sum() > 0.05 * covered.sum() + 10
    assert seen >= 15


def test_boxes_points_and_masks_of_records_fit_the_pixels(records, library):
    seen: Counter[str] = Counter()
    for record in everything(records):
        if str(task_of(record)) != "segmentation (image)" or record.segmentation is None:
            continue
        answer, mask = json.loads(inner(record)), coco_mask.decode(record.segmentation.rles[0]).astype(bool)
        pixels = np.asarray(Image.open(record.images[0]).convert("RGB"))
        height, width = pixels.shape[:2]
        assert mask.shape == (height, width) and mask_box(mask) == answer["boxes"]
        for points, wanted in ((answer["positive_points"], True), (answer["negative_points"], False)):
            assert all(mask[int(y * height / 1000), int(x * width / 1000)] == wanted for x, y in points)
        if "division" in record.problem:
            colours = Counter(map(tuple, pixels[mask]))
            assert colours.most_common(1)[0][1] > 0.4 * mask.sum()  # the rest is its label
            seen["map"] += 1
        else:
            name = record.problem.rpartition(" ")[2].rstrip(".")
            assert near(pixels, colour_of(library, name))[mask].mean() > 0.7
            seen["object"] += 1
    assert seen["map"] >= 1 and seen["object"] >= 6


def test_what_is_there_and_when_fits_the_decoded_frames(records, library):
    seen: Counter[str] = Counter()
    for record in everything(records):
        if record.problem_type not in ("temporal grounding", "spatial-temporal grounding"):
            continue
        asked = re.search(r"is the (\w+) visible\?", record.problem)
        if asked is None or asked[1] == "plate":
            continue
        frames, times = decode(record.videos[0])
        colour, (start, end) = colour_of(library, asked[1]), json.loads(inner(record))["time"]
        areas = np.array([near(frame, colour).sum() for frame in frames])
        there = (times >= start) & (times <= end)
        assert areas[there].min() > 2 * max(areas[~there].max(initial=0), 5)
        seen[record.problem_type] += 1
    assert min(seen.values()) >= 3


def test_shots_follow_one_another_as_the_answers_say(world):
    """The frames of a shot that is a photograph differ little from each other, those at a cut more."""
    for scene in scenes(world, 3):
        if scene.kind != "shots":
            continue
        assert scene.shots[0].start == 0 and scene.shots[-1].end == scene.duration
        assert all(one.end == other.start for one, other in zip(scene.shots, scene.shots[1:], strict=False))
        assert len(scene.backdrop) == len(scene.times)


def test_same_settings_give_the_same_bytes_and_pixels_however_many_processes(world, paths, tmp_path):
    again = build_world(world, tmp_path / "again", processes=2)
    for name, file in paths.files.items():
        assert file.read_bytes() == again.files[name].read_bytes()
    images, videos = (sorted((paths.directory / kind).iterdir()) for kind in ("images", "videos"))
    assert len(images) + len(videos) >= 100  # enough for the pool to be used
    for path in images:
        assert path.read_bytes() == (again.directory / "images" / path.name).read_bytes()
    for path in videos[::4]:
        np.testing.assert_array_equal(decode(path)[0], decode(again.directory / "videos" / path.name)[0])


# ---------------------------------------------------------------- the split by identity


def made_of(scene) -> set[str]:
    return {*scene.identities, *(sprite.identity for sprite in scene.sprites)} - {""}


@pytest.mark.parametrize(
    ("split", "items"), [("sft", "train"), ("rl", "train"), ("seen", "train"), ("unseen", "heldout")]
)
def test_scenes_are_made_of_items_of_one_split(world, library, split, items):
    known = {item.identity: item.split for item in library.items}
    drawn = list(scenes(replace_heldout(world), 2, split=split))
    assert {scene.kind for scene in drawn} == set(world.records_a_scene)
    for scene in drawn:
        assert made_of(scene) and {known[identity] for identity in made_of(scene)} == {items}


def replace_heldout(world):
    """The same world, of which every file has scenes of every kind."""
    return replace(world, train_rl=400, train_sft=400, heldout=800)


def test_no_text_of_a_file_names_an_object_of_the_other_split(records, library):
    """Neither in questions nor in answers, wrong options or thoughts."""
    names = {
        split: {item.name for item in library.cutouts if item.split == split}
        for split in ("train", "heldout")
    }
    sources: Counter[str] = Counter()
    for name, file in records.items():
        for record in file:
            said = set(
                re.findall(r"\w+", str((record.problem, record.options, record.answer, record.messages)))
            )
            unseen = record.data_source == "photos_unseen"
            assert not said & names["train" if unseen else "heldout"], record
            sources[record.data_source if name == "eval" else name] += 1
    assert sources["photos_seen"] == sources["photos_unseen"] == 120


def test_too_few_held_out_items_leave_the_unseen_part_out_and_are_named(tmp_path):
    world = PhotosWorld(0, 4, 4, 8, library=draw_library(tmp_path, heldout=2), **SIDES)
    assert {part.split: part.records for part in world.parts()}["unseen"] == 0
    assert "no objects scenes of heldout items: 2 names of cut-outs of 6" in world.notes()


# ---------------------------------------------------------------- libraries


def test_a_library_of_cutouts_and_photographs_alone_carries_every_task(library):
    poor = replace(library, coins=(), clips=(), maps=(), digits=())
    world = PhotosWorld(1, 200, 60, 4, library=poor, **SIDES)
    assert {task for _, task in world.task_counts(200)} == {task for task in TASKS if task.medium != "text"}
    assert not {"map", "coins", "digits"} & set(world.kinds("sft"))


def test_what_cannot_be_used_is_one_line(library, tmp_path, capsys):
    def said(*words) -> str:
        assert main([str(word) for word in (*words, "--train-sft", 4, "--train-rl", 4, "--heldout", 4)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "has no library.json" in said(tmp_path / "nothing", tmp_path / "out")
    Library(tmp_path, cutouts=library.cutouts[:2]).write()
    for item in library.cutouts[:2]:
        (tmp_path / item.path).write_bytes((library.folder / item.path).read_bytes())
    assert "too little for the Photos world: " in said(tmp_path, tmp_path / "out")
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("dear")
    assert "not a Photos world" in said(library.folder, other)
    assert not (tmp_path / "out").exists()


def test_fetching_makes_the_library_first_and_only_once(tmp_path, monkeypatch):
    fetched = []

    def fetch(arguments) -> int:
        fetched.append(arguments.out)
        draw_library(arguments.out)
        return 0

    monkeypatch.setattr(packages, "run", fetch)
    words = [
        str(tmp_path / "library"),
        str(tmp_path / "out"),
        "--fetch",
        "--image-side",
        "224",
        "--video-side",
        "128",
    ]
    words += ["--train-sft", "4", "--train-rl", "4", "--heldout", "4"]
    assert main(words) == main(words) == 0
    assert fetched == [tmp_path / "library"] and (tmp_path / "out" / "eval_photos.json").is_file()


def test_a_damaged_picture_is_named_and_leaves_nothing(library, tmp_path):
    broken = draw_library(tmp_path / "library")
    for item in broken.cutouts:
        (broken.folder / item.path).write_bytes(b"no picture")
    world = PhotosWorld(0, 4, 4, 4, library=broken, **SIDES)
    with pytest.raises(LibraryError, match=r"\.png cannot be read as a picture"):
        build_world(world, tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


def test_a_scene_that_cannot_come_about_ends_with_a_line(library):
    job = Job(0, "sft", "sft", "image", "map", 0, ())
    blank = [replace(item, divisions=item.divisions[:1]) for item in library.maps]
    world = PhotosWorld(0, 4, 4, 4, library=replace(library, maps=tuple(blank)), **SIDES)
    with pytest.raises(WorldError, match="no map scene of train items came about"):
        world.draw(job, random.Random(0))


def test_the_same_library_and_settings_are_used_again(library, tmp_path):
    small = {"train_rl": 6, "train_sft": 6, "heldout": 6, **SIDES}
    first = build_world(PhotosWorld(0, **small, library=library), tmp_path / "out")
    stamp = first.rl_json.stat().st_mtime_ns
    build_world(PhotosWorld(0, **small, library=library), tmp_path / "out")
    assert first.rl_json.stat().st_mtime_ns == stamp
    build_world(PhotosWorld(1, **small, library=library), tmp_path / "out")
    assert first.rl_json.stat().st_mtime_ns != stamp


def test_a_folder_of_ones_own_becomes_a_world(library, tmp_path):
    for kind, items in (("cutouts", library.cutouts), ("photos", library.photos)):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for item in items:
            (tmp_path / "mine" / kind / item.path).write_bytes((library.folder / item.path).read_bytes())
    library_of_folder(tmp_path / "mine", tmp_path / "library")
    words = [tmp_path / "library", tmp_path / "out", "--train-sft", 20, "--train-rl", 20, "--heldout", 20]
    words += ["--image-side", 224, "--video-side", 128, "--processes", 1]
    assert main([str(word) for word in words]) == 0
    assert len(read_records(tmp_path / "out" / "eval_photos.json")) == 20


def test_bad_sizes_are_errors(library):
    with pytest.raises(ValueError, match="heldout must be at least 1"):
        PhotosWorld(0, 4, 4, 0, library=library)
    with pytest.raises(ValueError, match="video_side must be at least 96"):
        PhotosWorld(0, 4, 4, 4, library=library, video_side=10)


def test_published_texts_are_cut_at_sentences():
    long = " ".join(["word"] * 39)
    assert short_form(f"It is old. The {long} end.") == "It is old."
    assert short_form(f"The {long} {long}.") == ""
    assert short_form("At 74 m. it is tall.  Here.") == "At 74 m. it is tall. Here."


def test_words_are_of_one_split(library):
    assert not set(Pools(library, "train").words) & set(Pools(library, "heldout").words)
    assert len(Pools(library, "heldout").words) >= 10


def test_sizes_of_the_fixture_hold(paths):
    assert json.loads((paths.directory / "manifest.json").read_text())["records"] == {
        "sft": SIZES["train_sft"] + SIZES["captions"],
        "rl": SIZES["train_rl"],
        "eval": SIZES["heldout"],
    }
