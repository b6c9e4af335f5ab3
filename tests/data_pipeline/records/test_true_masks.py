"""True masks of segmentation rows: each has the time of its frame, whatever a row names; bad rows are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.check.inspection import inspect_media
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.media.picture_header import picture_header
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import RecordError, read_records
from onethinker_jax.rewards.client.client import MaskItem
from onethinker_jax.rewards.metrics import decode_rle, encode_rle
from onethinker_jax.rewards.score import RewardSettings
from onethinker_jax.scoring import Scorer, check_truths
from tests.data_pipeline.making import frame_numbers, rl_row, write_image, write_rows, write_video

FRAMES, HEIGHT, WIDTH = 75, 64, 96  # 3 s at 25 frames a second
ANSWER = (
    '<answer>{"time": 1.1, "boxes": [1, 1, 9, 9], "positive_points": [[1, 1], [2, 2], [3, 3]], '
    '"negative_points": [[1, 1], [2, 2], [3, 3]]}</answer>'
)


def moving(number: int) -> np.ndarray:
    """The mask of a frame: an object that moves a pixel a frame, so a mask of another frame overlaps it less."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:40, number : number + 12] = True
    return mask


def rles(names: Sequence[str], numbers: Sequence[int]) -> dict[str, Any]:
    return {name: encode_rle(moving(number)) for name, number in zip(names, numbers, strict=True)}


def video_row(masks: dict[str, Any], fps: Any = 25, frames: Any = None, **changes: Any) -> dict[str, Any]:
    output = {"segmentation_rle": masks} | ({} if frames is None else {"frames": frames})
    row = rl_row(images=..., answer=..., options=[], problem_type="segmentation", problem="Find it.")
    row |= {"data_type": "video", "path": "v.mp4", "segmentation_output": output, "fps": fps, **changes}
    return {name: value for name, value in row.items() if value is not ...}


def image_row(mask: Any, **changes: Any) -> dict[str, Any]:
    return video_row(mask, fps=..., data_type="image", path="a.png", **changes)


class Tracker:
    """A mask back end that always knows where the object is, by the brightness of the frames; it counts pictures."""

    def __init__(self) -> None:
        self.frames: list[list[int]] = []

    def segment_videos(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        self.frames += [frame_numbers(item.frames) for item in items]
        return [np.stack([moving(number) for number in numbers]) for numbers in self.frames[-len(items) :]]

    def segment_images(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        return [moving(0) for _ in items]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    write_video(folder / "v.mp4", [i / 25 for i in range(FRAMES)], size=(HEIGHT, WIDTH))
    write_image(folder / "a.png", HEIGHT, WIDTH)
    return folder


FIFTHS = list(range(0, FRAMES, 5))
LATE = list(range(32, FRAMES, 5))  # from 1.28 s on
ALL = [f"{number:05d}" for number in range(FRAMES)]
# What a row names -> its masks, frame rate and list; the numbers of the frames that its masks are of.
LAYOUTS: dict[str, tuple[dict, float, list[str] | None, list[int]]] = {
    "every frame": (rles(ALL, range(FRAMES)), 25, None, list(range(FRAMES))),
    "every frame, listed": (rles(ALL, range(FRAMES)), 25, ALL, list(range(FRAMES))),
    "every fifth": (rles([f"{n:05d}" for n in FIFTHS], FIFTHS), 25, None, FIFTHS),
    "every fifth, file names": (rles([f"img_{n}.jpg" for n in FIFTHS], FIFTHS), 25, None, FIFTHS),
    "every fifth, from one": (rles([f"{n + 1:05d}.jpg" for n in FIFTHS], FIFTHS), 25, None, FIFTHS),
    "in disorder": (rles([f"{n:05d}" for n in FIFTHS[::-1]], FIFTHS[::-1]), 25, None, FIFTHS),
    "from the middle on": (rles([str(n) for n in LATE], LATE), 25, None, LATE),
    "every fifth of a list": (rles([ALL[n] for n in FIFTHS], FIFTHS), 25, ALL, FIFTHS),
    "a list of file names": (rles([ALL[n] for n in LATE], LATE), 25, [f"{name}.jpg" for name in ALL], LATE),
    "a list from one": (rles([f"{n + 1}" for n in LATE], LATE), 25, [f"{n + 1}" for n in range(FRAMES)], LATE),
    "a list without numbers": (rles(["a", "c"], [0, 2]), 25, ["a", "b", "c"], [0, 2]),
    "a list of every fifth": (rles([ALL[n] for n in FIFTHS], FIFTHS), 25, [ALL[n] for n in FIFTHS], FIFTHS),
    "a list of every fifth, five a second": (
        rles([ALL[n] for n in FIFTHS], FIFTHS),
        5,
        [ALL[n] for n in FIFTHS],
        FIFTHS,
    ),
    "a gap": (rles([ALL[n] for n in range(FRAMES) if n not in (12, 13)], [*range(12), *range(14, FRAMES)]), 25, ALL,
              [*range(12), *range(14, FRAMES)]),
    "a single one": (rles(["00037"], [37]), 25, None, [37]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_lie_on_their_frames(folder, name):
    """A back end that is always right has an overlap of 1: no mask is held against another frame's."""
    masks, fps, frames, numbers = LAYOUTS[name]
    (record,) = read_records(write_rows(folder / "eval.json", [video_row(masks, fps, frames)]))
    truth = record.segmentation
    assert truth is not None and truth.size == (HEIGHT, WIDTH)
    np.testing.assert_allclose(truth.times, np.array(numbers) / 25, atol=1e-6)
    for rle, number in zip(truth.rles, numbers, strict=True):
        np.testing.assert_array_equal(decode_rle(rle), moving(number))
    client: Any = Tracker()
    made = Scorer(client).predict_masks(record, ANSWER)
    assert made is not None and made.iou == 1.0
    (shown,) = client.frames
    compared = [number for number in shown if number in numbers]
    assert (len(shown) == 6 and len(compared) >= min(len(numbers), 3 if numbers[0] else 6)) or len(
        numbers
    ) < 3
    assert compared  # and so it is no mean of nothing
    view = view_record(record)
    assert view.masks is not None and len(view.masks.times) == len(numbers)
    inspect_media(record, fps=2, max_frames=16, time_limit=60)


def test_a_long_video_and_another_rate(tmp_path):
    """More sampling times than pictures; 29.97 frames a second called 30; masks of every seventh frame."""
    rate = 30000 / 1001
    write_video(tmp_path / "v.mp4", [i / rate for i in range(80)], size=(HEIGHT, WIDTH))
    numbers = list(range(0, 80, 7))
    row = video_row(rles([f"{n:05d}" for n in numbers], numbers), 30)
    (record,) = read_records(write_rows(tmp_path / "eval.json", [row]))
    client: Any = Tracker()
    made = Scorer(client).predict_masks(record, ANSWER)
    assert made is not None and made.iou == 1.0 and set(client.frames[0]) <= set(numbers)


def bad(masks: dict | None = None, **changes: Any) -> dict[str, Any]:
    return video_row(rles(ALL[:2], [0, 1]) if masks is None else masks, **changes)


SMALL = encode_rle(np.eye(4, dtype=bool))
ERRORS: dict[str, tuple[dict, str]] = {
    "no fps": (bad(fps=...), "fps: is missing, which the masks of a video need"),
    "an odd fps": (bad(fps="25"), "fps: must be a positive number"),
    "another size than the picture": (
        bad({"0": SMALL}),
        "segmentation_output: mask '0': is 4 x 4, the picture 64 x 96",
    ),
    "another size than resolution": (
        bad(resolution={"width": 64, "height": 96}),
        "segmentation_output: mask '00000': is 64 x 96, resolution 96 x 64",
    ),
    "two sizes": (
        bad({**rles(["0"], [0]), "1": SMALL}),
        "segmentation_output: mask '1': is 4 x 4, the first mask 64 x 96",
    ),
    "an image's of another size": (image_row(SMALL), "segmentation_output: is 4 x 4, the picture 64 x 96"),
    "an image's by frame": (image_row(rles(["0"], [0])), "masks by frame name for an image, which needs one"),
    "one for a video": (bad(encode_rle(moving(0))), "one mask for a video, which needs them by frame name"),
    "a frame that is not listed": (bad(frames=["00000", "00002"]), "mask '00001': is of no frame in frames"),
    "a frame listed twice": (bad(frames=["00000", "00001", "00000"]), "frames: names '00000' twice"),
    "names without numbers": (
        bad(rles(["a", "b"], [0, 1])),
        "mask 'a': its name has no frame number, and there is no",
    ),
    "one frame twice": (bad(rles(["1", "01"], [0, 1])), "masks '1' and '01' are of one frame"),
    "one frame of a list twice": (
        bad(rles(["1.jpg", "01"], [0, 1]), frames=["1.jpg", "2.jpg"]),
        "two masks of one frame",
    ),
    "no runs": (
        bad({"0": {"size": [64, 96], "counts": "00"}}),
        "mask '0': not a COCO RLE: its counts do not add up",
    ),
    "no letters of runs": (bad({"0": {"size": [64, 96], "counts": "é"}}), "mask '0': not a COCO RLE"),
    "only a null": (bad({"0": None}), "segmentation_rle has no mask, null for every frame"),
    "sizes in fractions": (bad({"0": {"size": [64.5, 96], "counts": "00"}}), "must be whole pixels"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(folder, name):
    row, message = ERRORS[name]
    file = write_rows(folder / "bad.json", [rl_row(problem_id=1), row])
    with pytest.raises(RecordError) as caught:
        read_records(file)
    assert str(caught.value).startswith(f"{file}: record 2 (problem_id 7): ") and message in str(caught.value)


def test_masks_behind_the_end(folder):
    (record,) = read_records(write_rows(folder / "late.json", [video_row(rles(["0", "500"], [0, 1]))]))
    with pytest.raises(
        RecordError, match=r"late\.json: record 1 .*mask '500': is of 20 s, but v\.mp4 lasts 3\.0 s"
    ):
        inspect_media(record, fps=2, max_frames=16, time_limit=60)
    client: Any = Tracker()
    made = Scorer(client).predict_masks(record, ANSWER)
    assert made is not None and made.iou == 1.0  # of the first frame


class CountingReader(MediaReader):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def image(self, path, bounds):
        self.read.append(path.name)
        return super().image(path, bounds)

    def video(self, path, bounds, **sampling):
        self.read.append(path.name)
        return super().video(path, bounds, **sampling)


def test_pictures_are_read_once_for_all_samples_of_a_record(folder):
    rows = [video_row(rles(ALL, range(FRAMES))), image_row(encode_rle(moving(0)))]
    records = read_records(write_rows(folder / "two.json", rows))
    reader, client = CountingReader(), Tracker()
    settings = RewardSettings(variant="paper", segmentation_reward="mask")
    scorer = Scorer(client, settings=settings, media=reader)  # type: ignore[arg-type]
    response = f"<think>a</think>{ANSWER}"
    scores = scorer(records, [[response] * 4] * 2)  # without a true box or points: masks alone are compared
    assert [[one.accuracy for one in samples_of_prompt] for samples_of_prompt in scores] == [[1.0] * 4] * 2
    assert sorted(reader.read) == ["a.png", "v.mp4"]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_record_without_an_answer_is_scored_by_its_masks(folder, variant):
    rows = [video_row(rles(ALL, range(FRAMES))), rl_row(problem_id=8)]
    records = read_records(write_rows(folder / "two.json", rows))
    client: Any = Tracker()
    scorer = Scorer(client, settings=RewardSettings(variant=variant))
    scores = scorer(records, [[f"<think>a</think>{ANSWER}"], ["<answer>A</answer>"]])
    assert [samples_of_prompt[0].accuracy for samples_of_prompt in scores] == [1.0, 1.0]
    with pytest.raises(
        RecordError, match=r"two\.json: record 1 .*: answer: is missing, which .* points needs"
    ):
        check_truths(records, RewardSettings())
    check_truths(records, RewardSettings(segmentation_reward="mask"))


def test_headers(tmp_path, folder):
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    film = write_video(tmp_path / "turned.mp4", [0.0, 0.1], size=(64, 96), turned=1)
    for file, kind, sides in ((tmp_path / "turned.jpg", "image", (30, 20)), (film, "video", (96, 64))):
        header = picture_header(file, kind)
        assert header is not None and (header.height, header.width) == sides
        pixels = MediaReader().image(file, None) if kind == "image" else None
        pixels = MediaReader().video(file, None, fps=2, max_frames=1).frames[0] if pixels is None else pixels
        assert pixels.shape[:2] == sides
    (tmp_path / "none.png").write_bytes(b"no picture")
    for kind in ("image", "video"):
        assert picture_header(tmp_path / "none.png", kind) is None
        assert picture_header(Path(folder / "missing"), kind) is None
