"""The page of a run: complete, self-contained, every number where it belongs; its looks are for eyes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.drawing.draw import PREDICTED, RIM, TRUE, Annotations, annotations_at, draw
from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.rewards.answers import StructuredAnswer
from onethinker_jax.rewards.score import RewardSettings, Score, score_response
from onethinker_jax.train.pages import page as page_module
from onethinker_jax.train.pages.charts import panel_html, panels
from onethinker_jax.train.pages.gallery import GalleryItem, Masks, card_html, gallery_item, stage_answer
from onethinker_jax.train.pages.intervals import Change
from onethinker_jax.train.pages.page import Summary, TaskSummary, write_page
from tests.train.pages.reading import GREY, Checker, record

BOX = '{"boxes": [100, 100, 400, 600]}'
PAPER = RewardSettings(variant="paper")
CURVES = [
    {"stage": "sft", "step": 10 * i, "time": 0.0, "loss": 3.0 / i, "tokens_per_second": 9000.0}
    for i in range(1, 60)
] + [
    {
        "stage": "rl",
        "step": i,
        "time": 0.0,
        "reward": 0.5 + i / 100,
        "reward/OCR (image)": 0.4,
        "kl": None,
        "odd": 1,
    }
    for i in range(1, 30)
]


def item(folder: Path, problem_type: str, data_type: str, truth: str, answer: str, **changes) -> GalleryItem:
    """A record with what two stages answered to it: the first nothing, the second `answer`."""
    one = record(folder, problem_type, data_type, truth, **changes)
    answers = []
    for stage, said in (("after SFT", "nothing"), ("after RL", answer)):
        response = f"<think>I looked & saw.</think>\n<answer>{said}</answer>"
        score = score_response(response, one.answer, problem_type=problem_type, data_type=data_type)
        answers.append(stage_answer(one, response, score, stage=stage))
    return gallery_item(one, answers, settings=PAPER)


def text_item(folder: Path, response: str, score: Score, **more) -> GalleryItem:
    """A record of a text task with one stage's response."""
    one = record(folder, "OCR", "image", "A")
    answers = [stage_answer(one, response, score, stage="after RL", **more)]
    return gallery_item(one, answers, settings=PAPER)


def items(folder: Path) -> list[GalleryItem]:
    points = '"positive_points": [[1,2],[30,40],[50,60]], "negative_points": [[700,2],[730,40],[750,60]]'
    cases = [
        ("spatial grounding", "image", '{"boxes": [100, 100, 400, 600]}'),
        ("segmentation", "image", f'{{"boxes": [100, 100, 400, 600], {points}}}'),
        ("segmentation", "video", f'{{"time": 2, "boxes": [100, 100, 400, 600], {points}}}'),
        ("temporal grounding", "video", '{"time": [1.0, 2.5]}'),
        (
            "spatial-temporal grounding",
            "video",
            '{"time": [1, 2], "boxes": {"1": [1,2,300,400], "2": [9,9,300,400]}}',
        ),
        ("tracking", "video", '{"boxes": {"1": [1,2,300,400], "2": [9,9,300,400], "3": [20,20,310,410]}}'),
        ("OCR", "image", "EXIT 4"),
    ]
    return [item(folder, kind, data, truth, truth.replace("100", "150")) for kind, data, truth in cases]


def written(path: Path, **changes) -> tuple[str, Checker]:
    tasks = [
        TaskSummary(
            "OCR (image)",
            30,
            [0.6, 0.8, 1.25],
            [0.0, 0.5, 0.75],
            [0.0, 0.98, 1.0],
            accuracy_change=Change(0.25, (0.1, 0.4)),
            reward_change=Change(0.45, (0.2, 0.7)),
            best=(1.5, 1.0),
        ),
        TaskSummary(
            "segmentation (image)",
            10,
            [0.0, 0.25, 0.2],
            [0.0, 0.15, 0.15],
            [0.0, 0.9, 1.0],
            [None, 0.4, 0.6],
            accuracy_change=Change(0.0, (0.0, 0.0)),
            reward_change=Change(-0.05, (-0.12, 0.02)),
            best=(1.5, 1.0),
        ),
    ]
    content = {
        "title": "A <small> run",
        "summary": Summary(tasks, tasks[0], facts={"Model": "3M & more"}, lead="What it is."),
        "curves": CURVES,
        "gallery": items(path.parent),
    }
    write_page(path, **(content | changes))
    text = path.read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return text, checker


def test_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    text, checker = written(tmp_path / "index.html")
    assert all(source.startswith("data:image/") for source in checker.loaded)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert checker.count["article"] == 7
    assert "A &lt;small&gt; run" in text
    assert "3M &amp; more" in text
    assert "Where is &lt;b&gt;it&lt;/b&gt;?" in text
    assert "I looked &amp; saw." in text
    assert list(tmp_path.glob("*.writing")) == []
    assert len(text) < 500_000


def test_summary_table(tmp_path: Path) -> None:
    text, _ = written(tmp_path / "index.html")
    for cell in ("0.500", "0.750", "1.250", "98%", "0.600"):
        assert f">{cell}</td>" in text
    assert "The largest accuracy is 1, the largest reward 1.5." in text
    assert text.index("<h2>Held-out records") < text.index("<h2>Answers") < text.index("<h2>Curves")


def test_only_sure_changes_are_coloured(tmp_path: Path) -> None:
    """Green or red where the interval leaves out 0; nothing, and what is within the noise, are neutral."""
    text, _ = written(tmp_path / "index.html")
    cells = re.findall(r'<td class="gain (\w+)" data-label="\nchange">([^<]*)<small>([^<]*)</small>', text)
    assert cells[:4] == [
        ("up", "+0.250", "+0.100 to +0.400"),
        ("up", "+0.450", "+0.200 to +0.700"),
        ("same", "+0.000", "none changed"),
        ("same", "-0.050", "-0.120 to +0.020"),
    ]


def test_a_largest_reward_that_differs_by_task_has_a_column(tmp_path: Path) -> None:
    rows = [
        TaskSummary("a", 1, [0.0, 1.0], [0.0, 1.0]),
        TaskSummary("b", 3, [0.4, 2.0], [0.0, 1.0], best=(4, 3)),
    ]
    text, _ = written(tmp_path / "index.html", summary=Summary(rows, rows[0], stages=("SFT", "RL")))
    assert text.count("<th>at most</th>") == 2 and "The largest accuracy is" not in text
    assert '<td class="soft wide-only">3</td>' in text and '<td class="soft wide-only">4</td>' in text
    assert text.count('<td class="gain same" data-label="\nchange">–</td>') == 6


def test_a_page_without_curves_or_gallery(tmp_path: Path) -> None:
    _, checker = written(tmp_path / "index.html", curves=[], gallery=[], summary=Summary([]))
    assert "article" not in checker.count
    assert "svg" not in checker.count


def test_charts_hold_the_numbers() -> None:
    made = panels(CURVES)
    assert [(stage, metric) for stage, metric, _ in made] == [
        ("sft", "loss"),
        ("sft", "tokens_per_second"),
        ("rl", "reward"),
        ("rl", "odd"),
    ]
    reward = made[2][2]
    assert [(one.name, one.points[0]) for one in reward] == [("all", (1, 0.51)), ("OCR (image)", (1, 0.4))]
    html = panel_html("rl", "reward", reward)
    data = chart_data(html)
    assert data["series"][0]["points"][-1] == [29, 0.79]
    assert data["x"] == [1, 29]
    for points in re.findall(r'points="([^"]*)"', html):
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 460
            assert 0 <= y <= 240


def chart_data(html: str) -> dict:
    """What the script reads of a panel's chart."""
    found = re.search(r"data-chart='([^']*)'", html)
    assert found is not None
    return json.loads(found[1].replace("&quot;", '"'))


def panel_of(curves: dict[str, list[float]], metric: str = "reward") -> str:
    """The one panel of these curves, by name; "" is the overall one."""
    rows = [
        {"stage": "rl", "step": step + 1, "time": 0.0}
        | {metric + (f"/{name}" if name else ""): values[step] for name, values in curves.items()}
        for step in range(len(next(iter(curves.values()))))
    ]
    ((stage, _, series),) = panels(rows)
    return panel_html(stage, metric, series)


def test_many_curves_become_small_charts_on_one_scale() -> None:
    tasks = {f"task <{number}>": [number / 20 + step / 100 for step in range(30)] for number in range(18)}
    html = panel_of({"": [0.5] * 30, **tasks})
    assert html.count('class="mini"') == 18 and html.count('class="chart"') == 1
    assert "task &lt;17&gt;" in html and "task <" not in html
    assert "All from 0 to 1.14, steps 1 to 30" in html
    heights = [
        [float(pair.split(",")[1]) for pair in line.split()]
        for line in re.findall(r'<polyline points="([^"]*)"/>', html)
    ]
    assert (
        len(heights) == 18 and heights[0][0] > heights[9][0] > heights[17][0]
    )  # higher is nearer to the top
    assert len(html) < 60_000


def test_few_curves_share_a_chart_whose_legend_chooses() -> None:
    noisy = [0.5 + 0.4 * (-1) ** step for step in range(40)]
    html = panel_of({"": [0.5] * 40, "OCR": noisy})
    assert re.findall(r'<button type="button" aria-pressed="true" data-series="(\d)">', html) == ["0", "1"]
    assert html.count('class="raw"') == 2
    (smooth,) = re.findall(r'<polyline points="([^"]*)" class="thin"', html)
    heights = [float(pair.split(",")[1]) for pair in smooth.split()]
    assert max(heights[4:-4]) - min(heights[4:-4]) < 45  # the values themselves swing over 150


def test_compiling_does_not_flatten_the_chart_of_times() -> None:
    html = panel_of({"step": [103.0, *[2.0 + step / 50 for step in range(40)]]}, "seconds")
    assert "beyond the chart, by compiling: 1, up to 103" in html
    points = chart_data(html)["series"][0]["points"]
    assert max(value for _, value in points) == pytest.approx(2.78)
    assert "beyond" not in panel_of({"step": [5.0, *[2.0] * 40]}, "seconds")
    assert "beyond" not in panel_of({"": [103.0, *[2.0] * 40]}, "loss")  # not a time: it may begin high


def test_a_wrong_answer_in_the_right_format_is_red(tmp_path: Path) -> None:
    """Its badge says its accuracy, not what it earned for format and structure."""
    one = record(tmp_path, "OCR", "image", "EXIT 4")
    response = "<think>I look.</think><answer>nothing</answer>"
    score = score_response(response, one.answer, problem_type="OCR", data_type="image", variant="released")
    assert (score.overall, score.accuracy) == (0.6, 0.0)
    answers = [stage_answer(one, response, score, stage="after RL")]
    card = card_html(gallery_item(one, answers, settings=RewardSettings(variant="released")))
    assert '<span class="badge" style="--good:0.000"><small>accuracy</small> 0.00</span>' in card
    assert "<span>reward</span><b>0.60 / 1.5</b>" in card


def test_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    card = card_html(item(tmp_path, "spatial grounding", "image", BOX, BOX))
    assert re.findall(r"<header><b>([^<]*)</b>", card) == ["after SFT", "after RL"]
    assert re.findall(r"</small> ([\d.]*)</span>", card) == ["0.00", "1.00"]
    assert 'data-accuracy="1.0000" data-change="1.0000"' in card
    pictures = re.findall(r'src="(data:[^"]*)"', card)
    assert len(pictures) == 2 and pictures[0] != pictures[1]  # only RL's has its box
    assert card_html(item(tmp_path, "OCR", "image", "A", "A")).count("<img") == 1  # a text: the medium once


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [5e-7, 1e-6], [1e9, -1e9], list(range(1000))])
def test_charts_of_odd_curves(values: list[float]) -> None:
    rows = [{"stage": "s", "step": i, "time": 0, "loss": v} for i, v in enumerate(values)]
    ((_, _, series),) = panels(rows)
    html = panel_html("s", "loss", series)
    assert "nan" not in html
    assert len(html) < 30_000


def colours(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}


def test_boxes_lie_where_they_should() -> None:
    picture = draw(GREY, Annotations(box=(250, 250, 750, 750)), Annotations(), 384)
    assert picture.size == (384, 256)
    pixels = np.asarray(picture)
    rows, columns = np.nonzero((pixels == TRUE).all(-1))
    for found, expected in zip(
        (columns.min(), columns.max(), rows.min(), rows.max()), (96, 287, 64, 191), strict=True
    ):
        assert abs(int(found) - expected) <= 2
    assert tuple(pixels[128, 192]) == (128, 128, 128)


def test_every_kind_of_annotation_shows() -> None:
    mask = np.zeros((64, 96), bool)
    mask[10:30, 10:40] = True
    kinds = [
        Annotations(box=(100, 100, 900, 900)),
        Annotations(positive_points=[(500, 500)]),
        Annotations(negative_points=[(500, 500)]),
        Annotations(track=[(100, 100), (900, 500)]),
        Annotations(mask=mask),
        Annotations(box=(-500, 990, 3000, 20)),  # outside and the wrong way round
    ]
    for annotations in kinds:
        assert TRUE in colours(draw(GREY, annotations, Annotations(), 192))
        assert PREDICTED in colours(draw(GREY, Annotations(), annotations, 192))
    assert colours(draw(GREY, Annotations(), Annotations(), 192)) == {(128, 128, 128)}


def test_points_lie_over_masks_and_positive_over_negative() -> None:
    """Whichever answer they are of: a mask that covers all hides no point, a negative point no positive one."""
    everywhere, place = np.ones((64, 96), bool), [(500, 500)]
    hidden = np.asarray(draw(GREY, Annotations(positive_points=place), Annotations(mask=everywhere), 384))
    assert (hidden == TRUE).all(-1).sum() > 30  # the true point's disc over the predicted mask
    row, column = 128, 192  # of the middle, where all points lie

    def sign_of(truth: Annotations, predicted: Annotations) -> str:
        """A plus has its dark arm upwards too."""
        pixels = np.asarray(draw(GREY, truth, predicted, 384))
        return "plus" if (pixels[row - 4, column] == RIM).all() else "minus"

    both = Annotations(positive_points=place, negative_points=place)
    assert sign_of(both, Annotations()) == sign_of(Annotations(), both) == "plus"
    assert sign_of(Annotations(positive_points=place), Annotations(negative_points=place)) == "plus"
    assert sign_of(Annotations(negative_points=place), Annotations(positive_points=place)) == "plus"
    assert sign_of(Annotations(negative_points=place), Annotations()) == "minus"


def test_a_small_mask_is_outlined_and_stays_visible() -> None:
    """A line around it, its own pixels only tinted; one pixel of a large frame is not lost in shrinking."""
    mask = np.zeros((64, 96), bool)
    mask[30, 40] = True  # 4 x 4 pixels of the picture
    pixels = np.asarray(draw(GREY, Annotations(mask=mask), Annotations(), 384))
    drawn = (pixels == TRUE).all(-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (116, 127, 156, 167)
    tint = tuple((0.78 * 128 + 0.22 * np.array(TRUE)).astype(int).tolist())
    assert tuple(pixels[121, 161].tolist()) == tint and not drawn[120:124, 160:164].any()
    lone = np.zeros((1000, 1500), bool)
    lone[333, 777] = True
    shrunk = np.asarray(
        draw(np.full((1000, 1500, 3), 128, np.uint8), Annotations(mask=lone), Annotations(), 150)
    )
    assert (shrunk == TRUE).all(-1).sum() > 8
    large = np.zeros((64, 96), bool)
    large[10:50, 10:70] = True
    rows, columns = np.nonzero(
        (np.asarray(draw(GREY, Annotations(mask=large), Annotations(), 384)) == TRUE).all(-1)
    )
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 199, 40, 279)  # inside it


def test_pictures_grow_by_whole_factors_and_big_ones_shrink() -> None:
    assert draw(GREY, Annotations(), Annotations(), 250).size == (192, 128)
    assert draw(np.zeros((600, 1000, 3), np.uint8), Annotations(), Annotations(), 250).size == (250, 150)


def test_annotations_belong_to_their_time() -> None:
    track = StructuredAnswer(boxes={1: (0, 0, 10, 10), 2: (20, 20, 30, 30)})
    assert annotations_at(track, 0.0).box is None
    assert annotations_at(track, 1.4).box == (0, 0, 10, 10)
    assert annotations_at(track, 1.5).track == [(5, 5), (25, 25)]
    key = StructuredAnswer(key_time=1.2, box=(0, 0, 9, 9))
    assert [annotations_at(key, t, (0.0, 1.0, 2.0)).box for t in (0.0, 1.0, 2.0)] == [
        None,
        (0, 0, 9, 9),
        None,
    ]
    assert annotations_at(key, None).box == (0, 0, 9, 9)


def test_masks_of_a_record_are_read_and_timed(tmp_path: Path) -> None:
    shape = np.zeros((64, 96), np.uint8, order="F")
    shape[10:20, 30:50] = 1
    encoded = coco_mask.encode(shape)
    rle = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}  # pyright: ignore
    points = "[[1, 2], [3, 4], [5, 6]]"
    box = f'{{"boxes": [1, 2, 3, 4], "positive_points": {points}, "negative_points": {points}}}'
    timed = box.replace("{", '{"time": 0, ')
    still = item(
        tmp_path, "segmentation", "image", box, "none", segmentation=TrueMasks(("",), (0,), (rle,), (64, 96))
    )
    assert still.true_masks is not None
    np.testing.assert_array_equal(still.true_masks.near(None), shape.astype(bool))
    moving = item(
        tmp_path,
        "segmentation",
        "video",
        timed,
        "none",
        segmentation=TrueMasks(("a", "c"), (0, 2), (rle, rle), (64, 96), 4.0),
    )
    assert moving.true_masks is not None
    assert list(moving.true_masks.times) == [0.0, 0.5]
    assert moving.true_masks.near(4.0) is None
    assert moving.answers[0].annotations is None


def test_frames_of_a_track_are_those_of_its_seconds(tmp_path: Path) -> None:
    boxes = json.dumps({"boxes": {str(second): [1, 2, 30, 40] for second in range(1, 5)}})
    shown = item(tmp_path, "tracking", "video", boxes, boxes)
    assert shown.times == (1.0, 2.0, 3.0, 4.0)
    assert shown.duration == pytest.approx(5.0, abs=0.1)
    plain = item(tmp_path, "OCR", "video", "A", "A")
    assert plain.times is not None
    assert len(plain.times) == 6


def test_a_full_page_leaves_cards_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = items(tmp_path)
    monkeypatch.setattr(page_module, "MAX_GALLERY_BYTES", 100_000)
    text, checker = written(tmp_path / "index.html", gallery=one * 20)
    assert "more are left out" in text
    assert 0 < checker.count["article"] < 140
    assert len(set(re.findall(r'<article class="card[^"]*" data-task="([^"]*)"', text))) == 7


def test_a_response_without_tags_is_shown_as_it_is(tmp_path: Path) -> None:
    bare = text_item(tmp_path, "just <words>", Score(0.0, 0.0, 0.0, 0.0))
    text, _ = written(tmp_path / "index.html", gallery=[bare])
    assert "just &lt;words&gt;" in text
    assert "no answer tags" in text


def test_masks_of_a_prediction_show(tmp_path: Path) -> None:
    mask = np.zeros((1, 64, 96), bool)
    mask[:, 20:40, 20:60] = True
    one = text_item(
        tmp_path, "x", Score(0.0, 0.0, 0.0, 0.0), masks=Masks([0.0], mask), extra={"mask IoU": 0.5}
    )
    text, _ = written(tmp_path / "index.html", gallery=[one])
    assert "mask IoU" in text
