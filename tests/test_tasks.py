"""The table of tasks: whole, read alike by all rooms, and the only place that lists problem types."""

import ast
import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

from onethinker_jax.data_pipeline.drawing.answer_picture import answer_picture
from onethinker_jax.data_pipeline.drawing.views import View
from onethinker_jax.data_pipeline.records.ground_truth import answer_error
from onethinker_jax.demo.printing import described
from onethinker_jax.rewards.answers import StructuredAnswer, parse_structured
from onethinker_jax.rewards.score import RewardSettings, max_accuracy, score_response
from onethinker_jax.tasks import (
    BY_NAME,
    MOMENTS,
    PROBLEM_TYPES,
    TABLE,
    TASKS,
    Task,
    complete,
    is_structured,
    table_in_markdown,
)
from tests.places import ROOT

JSON_TASKS = [task for task in TASKS if is_structured(task.problem_type)]


def test_tasks_have_one_text_form_and_moments_their_places() -> None:
    """What metrics' names, files and the arrays of checkpoints hold: new ones stand behind these."""
    assert [str(task) for task in TASKS[:23]] == [
        *(f"{name} ({medium})" for name in PROBLEM_TYPES[:3] for medium in ("image", "video", "text")),
        *("OCR (image)", "OCR (video)"),
        *(f"{name} ({medium})" for name in PROBLEM_TYPES[4:6] for medium in ("image", "video", "text")),
        *("temporal grounding (video)", "spatial grounding (image)", "spatial-temporal grounding (video)"),
        *("tracking (video)", "segmentation (image)", "segmentation (video)"),
    ]
    assert MOMENTS[:12] == (*PROBLEM_TYPES[:10], "segmentation (image)", "segmentation (video)")
    assert {task.moments for task in TASKS} == set(MOMENTS)
    assert sorted(TASKS) == [BY_NAME[name] for name in sorted(BY_NAME)]
    assert Task.of("OCR", "video-image") == Task("OCR", "video")
    assert str(Task.of("", "image")) == "messages (image)"


def example(task: Task) -> str:
    """The JSON that its teacher is shown."""
    wording = task.wording.teacher
    return wording[wording.index("{") :]


def seen(task: Task) -> View:
    """Grey pictures of the task's medium, at the seconds of the teacher's example."""
    times = tuple(float(second) for second in range(12)) if task.medium == "video" else None
    frames = [np.full((90, 120, 3), 90, np.uint8)] * len(times or (0.0,))
    return View("Where?", frames, times, 12.0 if times else 0.0, None, None)


@pytest.mark.parametrize("task", JSON_TASKS, ids=str)
def test_the_teacher_is_shown_a_right_answer(task: Task) -> None:
    """Read as an answer and checked as a truth by the same parts, and worth the whole accuracy."""
    answer, kind = example(task), (task.problem_type, task.medium)
    assert set(json.loads(answer)) == {part.key for part in TABLE[task.problem_type].parts_of(task.medium)}
    assert parse_structured(answer, *kind) is not None
    assert answer_error(answer, *kind, ()) is None
    settings = RewardSettings(box_weight=2.0, point_weight=3.0, time_weight=0.5, key_time_weight=7.0)
    score = score_response(
        f"<think>So.</think><answer>{answer}</answer>",
        answer,
        problem_type=task.problem_type,
        data_type=task.medium,
        settings=settings,
    )
    assert score.accuracy == pytest.approx(max_accuracy(*kind, settings=settings))
    assert score.structure == 1.0


@pytest.mark.parametrize("task", JSON_TASKS, ids=str)
def test_each_part_of_an_answer_is_checked_drawn_and_described(task: Task) -> None:
    whole, view = parse_structured(example(task), task.problem_type, task.medium), seen(task)
    assert whole is not None
    for part in TABLE[task.problem_type].parts_of(task.medium):
        rest = {key: value for key, value in json.loads(example(task)).items() if key != part.key}
        missing = json.dumps(rest)
        assert parse_structured(missing, task.problem_type, task.medium) is None
        assert str(answer_error(missing, task.problem_type, task.medium, ())).startswith(f"{part.key}: ")
        empty = getattr(StructuredAnswer(), part.field)
        without = replace(whole, **{part.field: empty})
        assert without != whole
        assert answer_picture(view, without).tobytes() != answer_picture(view, whole).tobytes(), part.key
        assert len(list(described(without, None, view))) < len(list(described(whole, None, view))), part.key


def test_every_annotation_of_an_answer_belongs_to_a_task() -> None:
    filled = {part.field for row in TABLE.values() for part in row.parts}
    assert filled == {field.name for field in dataclasses.fields(StructuredAnswer)}
    assert all(bool(row.parts) == (row.answer == "JSON") for row in TABLE.values())


def test_weights_are_settings_of_the_reward() -> None:
    names = {name for row in TABLE.values() for name in (*row.weights, *row.video_weights)}
    assert names <= {field.name for field in dataclasses.fields(RewardSettings)}


def test_the_docs_hold_the_table() -> None:
    assert table_in_markdown() in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def test_a_room_that_forgets_a_task_cannot_be_imported() -> None:
    with pytest.raises(LookupError, match=r"drawing/draw.py has no entry for tracking \(video\)"):
        complete("drawing/draw.py", {}, [Task("tracking", "video")])
    with pytest.raises(LookupError, match="has an entry for guessing, which"):
        complete("rewards/score.py", {"guessing": 1}, [])


@pytest.mark.parametrize("name", ["guessing", "segmentation (image)", "Tracking"])
def test_an_unknown_problem_type_is_no_other(name: str) -> None:
    with pytest.raises(ValueError, match="unknown problem_type"):
        parse_structured("{}", name, "image")
    for variant in ("paper", "released"):
        with pytest.raises(ValueError, match="unknown problem_type"):
            score_response("", "{}", problem_type=name, data_type="image", variant=variant)


def modules() -> list[tuple[str, ast.Module]]:
    """Those of the package but the table."""
    files = sorted((ROOT / "onethinker_jax").rglob("*.py"))
    return [(str(f), ast.parse(f.read_text(encoding="utf-8"))) for f in files if f.name != "tasks.py"]


def test_nobody_else_lists_problem_types() -> None:
    """Three in a list, tuple or set; in a dict, where the code beside it does not check that all are there."""
    for path, tree in modules():
        checked = {
            id(inner)
            for node in ast.walk(tree)
            if (isinstance(node, ast.Call) and ast.unparse(node.func) == "complete")
            or (isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "QuestionTable")
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            items = node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else []
            if isinstance(node, ast.Dict) and id(node) not in checked:
                items = node.keys
            named = [item.value for item in items if isinstance(item, ast.Constant)]
            names = [name for name in named if name in PROBLEM_TYPES]
            assert len(names) < 3, f"{path}:{getattr(node, 'lineno', 0)} lists {', '.join(map(str, names))}"


def test_nobody_else_writes_or_parses_the_text_form_of_a_task() -> None:
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.strip()
                assert text not in BY_NAME, f"{path}:{node.lineno} writes the task {text!r} out"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                splits = "partition" in node.func.attr or "split" in node.func.attr
                first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
                assert not (splits and first == " ("), f"{path}:{node.lineno} parses a task's text form"
