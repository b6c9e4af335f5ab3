"""Pages of rollouts: each sample, its numbers, its annotations over the pictures, and nothing loaded from elsewhere."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.responses import Samples
from onethinker_jax.rewards.score import score_response
from onethinker_jax.train.config.run import LogSettings
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.run_folder import RunFolder
from tests.train.pages.reading import Checker, record
from tests.train.rl.small_run import SETTINGS

BOX = '{"boxes": [100, 200, 400, 600]}'
POINTS = '"positive_points": [[10,20],[30,40],[50,60]], "negative_points": [[700,20],[730,40],[750,60]]'
CASES = [
    ("spatial grounding", "image", BOX),
    ("segmentation", "image", f'{{"boxes": [100, 100, 400, 600], {POINTS}}}'),
    ("temporal grounding", "video", '{"time": [1.0, 2.5]}'),
    ("tracking", "video", '{"boxes": {"1": [1,2,300,400], "2": [9,9,300,400], "3": [20,20,310,410]}}'),
    ("OCR", "image", "EXIT <4>"),
]


def group(folder: Path, kind: str, data_type: str, truth: str, number: int = 7, samples: int = 3) -> Group:
    """A right answer, one with other numbers, and one without tags that was cut off."""
    one = record(folder, kind, data_type, truth, problem_id=number)
    right = f"<think>I looked & saw.</think>\n<answer>{truth}</answer>"
    texts = [right, right.replace("100", "150").replace("2.5", "2.0"), "no <idea>"][:samples]
    scores = [score_response(text, one.answer, problem_type=kind, data_type=data_type) for text in texts]
    tokens = [np.arange(5 + i, dtype=np.int32) for i in range(samples)]
    logprobs = [np.zeros(len(ids), np.float32) for ids in tokens]
    prompt: Any = SimpleNamespace(tokens=np.zeros(1), patches=np.zeros(0))
    return Group(0, one, prompt, Samples(tokens, logprobs, [True, True, False][:samples], texts), scores)


def written(folder: Path, groups: list[Group], step: int = 20, **settings: Any) -> tuple[str, Checker]:
    pages = RolloutPages(RunFolder(folder), LogSettings(**settings), media=MediaReader(), fps=2.0)
    advantages = np.array([[1.5, -0.25, -1.25]] * len(groups), np.float32)
    pages.write(step, groups, advantages, {"reward": 0.5, "prompts_drawn": 9.0, "advantage_abs": 1.0})
    text = (folder / "rollouts" / f"step_{step:08}.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return text, checker


def test_a_page_is_whole(tmp_path: Path) -> None:
    text, checker = written(tmp_path, [group(tmp_path, *case) for case in CASES])
    assert all(source.startswith("data:image/") or source == "index.html" for source in checker.loaded)
    assert not re.search(r"https?://|@import|url\(", text)
    assert checker.count["article"] == 5 and checker.count["details"] == 15
    assert text.count(" open><summary>") == 5  # the best of each
    assert "Where is &lt;b&gt;it&lt;/b&gt;?" in text and "I looked &amp; saw." in text
    assert "EXIT &lt;4&gt;" in text and "no &lt;idea&gt;" in text
    assert text.count("+1.50") == text.count("-1.25") == 5
    assert text.count("cut off</span>") == 5 and text.count("end token</span>") == 10
    for task in ("spatial grounding (image)", "OCR (image)", "tracking (video)"):
        assert f'data-task="{task}"' in text and f'<option value="{task}">' in text
    assert list(tmp_path.rglob("*.writing")) == []


def test_annotations_lie_where_the_sample_says(tmp_path: Path) -> None:
    text, _ = written(tmp_path, [group(tmp_path, *CASES[0])])
    boxes = re.findall(r'data-sample="(\d)"([ a-z]*)><i class="box" style="([^"]*)"', text)
    assert boxes == [
        ("0", "", "left:10.0%;top:20.0%;width:30.0%;height:40.0%"),
        ("1", " hidden", "left:15.0%;top:20.0%;width:25.0%;height:40.0%"),
    ]
    text, _ = written(tmp_path, [group(tmp_path, *CASES[1])])
    assert len(re.findall(r'class="point plus"', text)) == len(re.findall(r'class="point minus"', text)) == 6
    assert '<i class="point minus" style="left:70.0%;top:2.0%"></i>' in text
    text, _ = written(tmp_path, [group(tmp_path, *CASES[2])])
    spans = re.findall(r'class="span predicted" title="predicted: ([^"]*)"', text)
    assert spans == ["1–2.5 s", "1–2 s"]


def test_prompts_are_taken_from_each_task_in_turn(tmp_path: Path) -> None:
    many = [group(tmp_path, *CASES[4], number=100 + i) for i in range(6)]
    groups = [*many, group(tmp_path, *CASES[0], number=1), group(tmp_path, *CASES[2], number=2)]
    text, _ = written(tmp_path, groups, rollout_groups=4)
    numbers = re.findall(r'class="number">#(\d+)', text)
    assert numbers == ["1", "2", "100", "101"]  # those with annotations to be seen first


def test_the_index_leads_to_every_page(tmp_path: Path) -> None:
    one = [group(tmp_path, *CASES[4])]
    for step in (5, 10):
        _, checker = written(tmp_path, one, step)
    assert checker.loaded[:2] == ["step_00000005.html", "index.html"]
    index = (tmp_path / "rollouts" / "index.html").read_text()
    assert re.findall(r'href="([^"]*)">([^<]*)<', index) == [
        ("step_00000010.html", "step 10"),
        ("step_00000005.html", "step 5"),
    ]
    assert "0.500" in index


def test_media_that_are_gone_are_said(tmp_path: Path) -> None:
    one = group(tmp_path, *CASES[0])
    Path(str(one.record.images[0])).unlink()
    text, checker = written(tmp_path, [one])
    assert "scene.png" in text and checker.count["details"] == 3


def test_pages_of_a_run(train: Any, tmp_path: Path) -> None:
    pages = RolloutPages(RunFolder(tmp_path), LogSettings(rollouts_every=2), media=MediaReader(), fps=2.0)
    train(tmp_path, pages=pages, table_every=1)
    names = sorted(path.name for path in (tmp_path / "rollouts").iterdir())
    assert names == ["index.html", "step_00000002.html", "step_00000004.html"]
    text = (tmp_path / "rollouts" / "step_00000004.html").read_text()
    assert text.count("<article") == SETTINGS.prompts_per_step
    assert text.count('<details class="sample"') == SETTINGS.prompts_per_step * SETTINGS.rollout.group_size


@pytest.mark.parametrize(("every", "steps"), [(0, []), (3, [3, 6])])
def test_which_steps_have_one(tmp_path: Path, every: int, steps: list[int]) -> None:
    pages = RolloutPages(RunFolder(tmp_path), LogSettings(rollouts_every=every), media=MediaReader(), fps=2.0)
    assert [step for step in range(1, 8) if pages.wanted(step)] == steps
