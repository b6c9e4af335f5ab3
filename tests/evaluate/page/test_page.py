"""The page of an evaluation: every task drawn, hostile text, missing media, nothing scored, two runs, its size."""

import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.drawing.draw import PREDICTED, TRUE
from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.data_pipeline.shapes.world import build_shapes_world
from onethinker_jax.evaluate import score
from onethinker_jax.evaluate.page.__main__ import main
from onethinker_jax.evaluate.page.examples import choose
from onethinker_jax.evaluate.page.pictures import FULL
from onethinker_jax.evaluate.results.kept import read_results
from onethinker_jax.tasks import Task
from tests.evaluate.metrics.problems import answered, row
from tests.evaluate.page.making import HOSTILE, made_up, results
from tests.train.pages.reading import Checker

OPTIONS = ["A. red", "B. blue"]


class Page(HTMLParser):
    """The cards of a page, with their attributes and text, and every tag that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cards: list[dict[str, Any]] = []
        self.text = ""
        self._inside = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.cards.append({**dict(attrs), "text": "", "pictures": []})
            self._inside = True
        if tag == "img" and self._inside:
            self.cards[-1]["pictures"].append(dict(attrs)["src"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._inside = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside:
            self.cards[-1]["text"] += data


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shapes_world(
        tmp_path_factory.mktemp("world"), seed=3, train_rl=1, train_sft=1, heldout=100, processes=1
    ).eval_json


@pytest.fixture(scope="module")
def folder(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of answers to every task: shifted a little, or right."""
    return results(evaluation, tmp_path_factory.mktemp("runs") / "a", lambda one: made_up(one, skill=0.7))


def page_of(*words: str | Path) -> Page:
    assert main([str(word) for word in words]) == 0
    folders = [
        Path(word) for word in words[: next((i for i, one in enumerate(words) if str(one)[:2] == "--"), 2)]
    ]
    return Page(folders[-1] / "index.html")


def test_every_task_is_drawn(evaluation: Path, folder: Path) -> None:
    """Both the true answer's and the prediction's colour are on the pictures of all tasks that have places."""
    page = page_of(folder, "--examples", "2")
    drawn = {"spatial grounding", "spatial-temporal grounding", "tracking", "segmentation"}
    tasks = {str(task_of(record)) for record in read_records(evaluation)}
    assert {card["data-task"] for card in page.cards} == tasks
    assert {Task(kind, "video") for kind in drawn - {"spatial grounding"}} <= set(
        map(Task.of, *zip(*map(split, tasks), strict=True))
    )
    for card in page.cards:
        assert card["pictures"], card["text"]
        seen = [pixels_of(uri) for uri in card["pictures"]]
        on = [any(has(pixels, colour) for pixels in seen) for colour in (TRUE, PREDICTED)]
        if split(card["data-task"])[0] in drawn:
            assert on == [True, True], card["data-task"]
        if card["data-task"] == "temporal grounding (video)":
            assert card["text"].count(" s") > 2
    assert page.source.count('class="lane"') >= 2 * len({"temporal grounding", "spatial-temporal grounding"})


def split(task: str) -> tuple[str, str]:
    kind, medium = re.fullmatch(r"(.*) \((.*)\)", task).groups()  # type: ignore[union-attr]
    return kind, medium


def pixels_of(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return int((np.abs(pixels.astype(int) - colour).max(2) < 24).sum()) > 20


def test_nothing_is_outside_of_the_file(folder: Path) -> None:
    page = page_of(folder)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    checker = Checker()
    checker.feed(page.source)
    assert not checker.open
    assert "@import" not in page.source and "url(" not in page.source


def test_the_table_has_the_published_numbers(tmp_path: Path) -> None:
    rows = [row("temporal grounding", '{"time": [0, 10]}') for _ in range(4)]
    file = write(tmp_path / "eval_charades.json", rows)
    texts = iter(['{"time": [0, 10]}', '{"time": [0, 6]}', '{"time": [8, 9]}', "none"])
    out = results_of(file, tmp_path / "out", lambda _: answered(next(texts)))
    page = page_of(out)
    line = re.search(r"<tr[^>]*>(?:(?!</tr>).)*>R@0\.5<.*?</tr>", page.source)
    assert line is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", line[0])
    assert cells[2].startswith("<b>50.0</b>") and cells[3] == "<b>50.0</b>" and cells[4] == "4"
    assert cells[5:] == ["33.5<small>released</small>", "68.3<small>released</small>"]
    assert page.source.count('class="paper"') == page.source.count('class="base"') == 4
    assert "4 examples" not in page.text and page.text.count("no picture:") == len(page.cards) == 4


def test_responses_cannot_leave_their_place(evaluation: Path, tmp_path: Path) -> None:
    """A response, and a reason of a failure, may hold HTML and scripts."""
    lines = iter(range(10**6))

    def answer(record: Record) -> dict[str, Any]:
        if next(lines) % 3 == 0:
            return {"problem_id": record.problem_id, "failed": HOSTILE}
        told = f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>"
        return {"problem_id": record.problem_id, "response": told}

    plain = page_of(
        results(evaluation, tmp_path / "plain", lambda one: {"problem_id": one.problem_id, "response": "x"})
    )
    hostile = page_of(results(evaluation, tmp_path / "hostile", answer))
    kinds = {(tag, *sorted(attributes)) for tag, attributes in hostile.tags}
    assert ("script",) in kinds and hostile.source.count("<script>") == hostile.source.count("</script>") == 1
    assert not [tag for tag, attributes in hostile.tags if any(name.startswith("on") for name in attributes)]
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags} | {"small"}
    assert "alert(1)" in hostile.text and "\x1b" not in hostile.source


def test_questions_groups_and_names_cannot_either(tmp_path: Path) -> None:
    given = {"problem": f"What? {HOSTILE}", "options": [f"A. {HOSTILE}", "B. <b>blue</b>"]}
    rows = [
        {**row("multiple choice", "A"), **given, "data_source": source + HOSTILE}
        for source in ("<i>x", "y", "y")
    ]
    file = write(tmp_path / "eval_<i>' onclick='mine.json", rows)
    page = page_of(
        results_of(file, tmp_path / "<b>out", lambda _: None),
        results_of(file, tmp_path / "b", lambda _: answered("A")),
    )
    assert page.source.count("<script>") == 1
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert "By source" in page.text and page.text.count("<b>blue</b>") == 3 and "<b>out" in page.text
    checker = Checker()
    checker.feed(page.source)
    assert not checker.open


def test_missing_media_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file whose media are gone, and a file that is itself gone: the examples stay."""
    rows = [row("multiple choice", "A", options=OPTIONS) for _ in range(3)]
    file = write(tmp_path / "eval_mine.json", rows)
    out = results_of(file, tmp_path / "out", lambda _: answered("A"))
    page = page_of(out)
    assert len(page.cards) == 3 and page.text.count("gone.png") == 3
    assert "3 are shown without their pictures, 0 of them for the page's size" in page.text
    assert "a page with 3 examples, 3 of them without their pictures is in" in caplog.text
    file.unlink()
    page = page_of(out)
    assert page.text.count("no longer there") == len(page.cards) == 3
    (tmp_path / "elsewhere").mkdir()
    page = page_of(out, "--data", tmp_path / "elsewhere")
    assert page.text.count("no longer there") == 3
    write(tmp_path / "elsewhere" / "eval_mine.json", rows)
    page = page_of(out, "--data", tmp_path / "elsewhere")
    assert page.text.count(str(tmp_path / "elsewhere" / "gone.png")) == 3


def test_nothing_scored(tmp_path: Path) -> None:
    file = write(
        tmp_path / "eval_mine.json", [row("multiple choice", "A", options=OPTIONS) for _ in range(3)]
    )
    out = results_of(file, tmp_path / "out", lambda _: None)
    page = page_of(out)
    assert "3 failed" in page.text and "not defined" in page.text
    assert [card["data-verdicts"] for card in page.cards] == ["failed"] * 3
    assert {card["data-kinds"] for card in page.cards} == {"failed"}
    assert "eval_mine: 3 × failed: lost" in page.text


def test_two_runs(evaluation: Path, folder: Path, tmp_path: Path) -> None:
    better = results(evaluation, tmp_path / "b", lambda one: made_up(one, skill=1.0))
    page = page_of(folder, better, "--examples", "3")
    kept = [read_results(one).benchmarks["eval_shapes"] for one in (folder, better)]
    assert {"better", "best"} <= {kind for card in page.cards for kind in card["data-kinds"].split()}
    assert {card["data-verdicts"] for card in page.cards} >= {"wrong right", "right right"}
    found = json.loads((folder / "metrics.json").read_text())["eval_shapes"]["accuracy"]["standard"]
    assert f"<b>{100 * found:.1f}</b>" in page.source and "<b>100.0</b>" in page.source
    assert '"layout": "onethinker"' in page.text and page.text.count('"jiwer"') == 2
    assert str(folder) in page.text and str(better) in page.text and "B − A" in page.text
    for card in page.cards:
        assert card["text"].count("Reasoning") == 2, card["text"]
    assert len(choose(kept, 3)) == len(page.cards)
    assert page.source.count('class="run1"') > 5


def test_scoring_writes_the_page_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "eval_mine.json", [row("multiple choice", "A", options=OPTIONS) for _ in range(4)]
    )
    a = results_of(file, tmp_path / "a", lambda _: answered("B"))
    b = tmp_path / "b"
    (tmp_path / "b.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace(">B<", ">A<"))
    words = [str(tmp_path / "b.jsonl"), str(file), "--out", str(b), "--compare"]
    capsys.readouterr()
    assert score.main([*words, str(a)]) == 0
    assert len(Page(b / "index.html").cards) == 4
    assert json.loads((b / "compare.json").read_text())["benchmarks"]["eval_mine"]["both"] == 4
    printed = capsys.readouterr().out
    assert "+1.0000" in printed
    assert score.main([*words, str(tmp_path / "gone")]) == 2
    assert "gone: has no results.json" in capsys.readouterr().err


def test_runs_of_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for name, truth in (("a", "A"), ("b", "B")):
        file = write(tmp_path / "eval_mine.json", [row("multiple choice", truth, options=OPTIONS)])
        outs.append(results_of(file, tmp_path / name, lambda _: answered("A")))
    capsys.readouterr()
    assert main(list(map(str, outs))) == 1
    assert "different files" in capsys.readouterr().err
    assert main([str(tmp_path / "gone")]) == 1
    assert "has no results.json" in capsys.readouterr().err
    assert main([*map(str, outs), "third"]) == 2


def test_the_size_of_pictures_is_bounded(folder: Path, tmp_path: Path) -> None:
    whole = page_of(folder, "--examples", "1")
    assert len(whole.source) > 100_000 and FULL not in whole.text
    assert (
        main([str(folder), "--examples", "1", "--megabytes", "0", "--page", str(tmp_path / "small.html")])
        == 0
    )
    small = Page(tmp_path / "small.html")
    assert len(small.cards) == len(whole.cards) and small.text.count(FULL) == len(small.cards)
    assert small.source.count("data:image/") == 0
    assert page_of(folder, "--examples", "0").cards == []


def test_the_same_page_every_time(folder: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("1", "2"):
        assert main([str(folder), "--examples", "1", "--page", str(tmp_path / name)]) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_examples_are_of_all_kinds_and_tasks(folder: Path) -> None:
    benchmark = read_results(folder).benchmarks["eval_shapes"]
    tasks = {one.groups["task"] for one in benchmark.problems.values()}
    chosen = choose([benchmark], 1)
    of_kind = {kind: [one for one in chosen if kind in one.kinds] for kind in ("best", "worst", "random")}
    assert {one.head["task"] for one in of_kind["random"]} == tasks and len(of_kind["random"]) == len(tasks)
    assert choose([benchmark], 1, seed=1)[0].problem_id and not choose([benchmark], 0)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps([{**one, "problem_id": i} for i, one in enumerate(rows, 1)]))
    return path


def results_of(file: Path, out: Path, text: Any) -> Path:
    """Results of a file whose media are not there; a text that is None has failed."""

    def lines() -> Iterator[str]:
        for one in json.loads(file.read_text()):
            said = text(one)
            answer = {"failed": "lost"} if said is None else {"response": said}
            yield json.dumps({"problem_id": one["problem_id"], **answer}) + "\n"

    predictions = out.with_suffix(".jsonl")
    predictions.write_text("".join(lines()))
    assert score.main([str(predictions), str(file), "--out", str(out), "--no-page"]) == 0
    assert not (out / "index.html").exists()
    return out
