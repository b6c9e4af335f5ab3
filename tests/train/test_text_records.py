"""Training on records without media beside others: losses and gradients, a step, scores, pages, a whole run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.packing import Batch, pack_rows
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import Record, read_records, task_of
from onethinker_jax.evaluate.answers.predictions import evaluate, read_predictions, write_predictions
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.rewards.score import RewardSettings, Variant, max_overall
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import MOMENTS, Task
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.optimizer import OptimizerSettings
from onethinker_jax.train.config.presets import shapes
from onethinker_jax.train.config.run import LogSettings
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.pages.gallery import card_html, gallery_item, stage_answer
from onethinker_jax.train.pages.page import Summary, TaskSummary, write_page
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.rollouts import Group
from onethinker_jax.train.run_folder import RunFolder
from onethinker_jax.train.sft import sft_loss, sft_update
from onethinker_jax.train.state import init_state
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows
from tests.train import making, running
from tests.train.pages.reading import Checker
from tests.train.rl.small_run import SETTINGS

SHAPE = {"tokens": 160, "patches": 64}


def text_row(number: int, **changes: Any) -> dict:
    about = {"images": ..., "options": ..., "data_type": "text", "problem_type": "math"}
    return rl_row(
        **{
            **about,
            "problem_id": number,
            "problem": f"What is {number} + 4?",
            "answer": str(number + 4),
            **changes,
        }
    )


def text_sft_row(number: int) -> dict:
    row = sft_row(answer=str(number + 4), problem_id=number, problem_type="math")
    row["messages"][0]["content"] = f"What is {number} + 4?"
    del row["images"]
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_image(folder / "a.png", 64, 64)
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> Record:
    (record,) = read_records(write_rows(folder / "text.json", [text_row(3)]))
    return record


# ---------------------------------------------------------------------------------------------- SFT and RL


@pytest.fixture(scope="module")
def batches(folder: Path, processor: Processor) -> dict[str, Batch]:
    """Two texts and an image in one row, each in a row of its own, and texts alone."""
    rows = [text_sft_row(1), sft_row(), text_sft_row(2)]
    made = [processor.training(record) for record in read_records(write_rows(folder / "sft.json", rows))]
    assert [len(example.patches) for example in made] == [0, 16, 0]
    together, left = pack_rows(made, rows=1, **SHAPE)
    assert not left

    def one_a_row(examples: list) -> Batch:
        parts = [pack_rows([example], rows=1, **SHAPE)[0] for example in examples]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    nothing = jax.tree.map(np.zeros_like, one_a_row(made[:2]))
    padded = jax.tree.map(lambda one, zeros: np.concatenate([one, zeros]), together, nothing)
    return {"packed": padded, "apart": one_a_row(made), "text": one_a_row([made[0], made[2], made[0]])}


@pytest.fixture(scope="module")
def found(policy, batches) -> dict[str, Any]:
    """Summed loss, targets and gradients of each batch, by one compiled program."""
    traced = []

    def loss(params: Any, batch: Batch) -> Any:
        traced.append(1)
        return sft_loss(policy[0], params, batch)

    program = jax.jit(jax.value_and_grad(loss, has_aux=True))
    found = {name: program(policy[1], batch) for name, batch in batches.items()}
    assert len(traced) == 1
    return found


def test_packed_with_media_a_text_has_the_same_loss_and_gradient(found):
    """And where no row of a micro-batch has media, the vision tower's gradient is zero and nothing is NaN."""
    (packed, packed_sums), (apart, apart_sums) = (found[name][0] for name in ("packed", "apart"))
    assert float(packed) == pytest.approx(float(apart), rel=1e-6)
    assert float(packed_sums["tokens"]) == float(apart_sums["tokens"]) > 0
    one_row, rows, text = (making.named(found[name][1]) for name in ("packed", "apart", "text"))
    for name, leaf in one_row.items():
        most = max(1.0, np.abs(leaf).max())
        np.testing.assert_allclose(leaf, rows[name], atol=2e-6 * most, err_msg=name)
        assert leaf.any() and np.isfinite(text[name]).all(), name
        assert text[name].any() != name.startswith("visual."), name
    assert sum(name.startswith("visual.") for name in one_row) > 10


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_update_on_text_alone_leaves_the_vision_tower(policy, found, kind):
    """Whatever the optimiser makes of gradients that are all zero: no NaN, no step."""
    graphdef, params = policy
    settings = OptimizerSettings(kind=kind, learning_rate=1e-3, weight_decay=0.0, warmup=0.0)
    optimizer = make_optimizer(settings, 4, train_vision=True)
    with jax.set_mesh(make_mesh()):
        copy, gradients = (
            jax.tree.map(lambda leaf: leaf.copy(), tree) for tree in (params, found["text"][1])
        )
        state = init_state(copy, optimizer, init_moments(1), make_mesh(), reference=False)
        policy = Policy(graphdef, make_mesh())
        update = sft_update(policy, optimizer, replace(shapes().sft, optimizer=settings))
        before = making.named(params)
        state, norm = update.apply(state, gradients, found["text"][0][1]["tokens"], found["text"][0][0])
    assert np.isfinite(float(norm)) and float(norm) > 0
    for name, leaf in making.named(state.params).items():
        assert np.isfinite(leaf).all(), name
        assert np.array_equal(leaf, before[name]) == name.startswith("visual."), name


def test_an_rl_step_on_text_and_images(train, records, tmp_path):
    """Rewards by task; the moments are those of the problem type, whatever the media."""
    assert {task_of(record).medium for record in records} == {"image", "text"}
    train(tmp_path, settings=replace(SETTINGS, steps=2))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {"reward/numerical (text)", "reward/numerical (image)", "sigma/numerical"} <= names
    assert not [name for name in names if name.startswith("sigma/") and name.endswith("(text)")]
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"]) for row in rows)
    assert Task("math", "text").moments == Task("math", "image").moments == "math" in MOMENTS
    assert not [name for name in MOMENTS if name.endswith("(text)")]  # checkpoints hold none of their own


@pytest.mark.slow
def test_rl_on_text_alone(train, policy, records, tmp_path):
    """A whole stream without any medium, in the shapes of one with media: the vision tower stays as it was."""
    corpus = [record for record in records if record.data_type == "text"]
    optimizer = replace(SETTINGS.optimizer, weight_decay=0.0)
    settings = replace(
        SETTINGS, steps=1, loss=replace(SETTINGS.loss, kl_coefficient=0.0), optimizer=optimizer
    )
    before = making.named(policy[1])
    params = train(tmp_path, settings=settings, corpus=corpus)
    moved = {name for name, leaf in making.named(params).items() if not np.array_equal(leaf, before[name])}
    assert moved and not [name for name in moved if name.startswith("visual.")]


# ---------------------------------------------------------------------------------------------- scores, evaluation


class Judge:
    """A judge of text that gives every answer 0.25, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def score_text(self, items: Any) -> list[float]:
        self.asked += items
        return [0.25] * len(items)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_scores_of_both_variants(folder: Path, variant: Variant) -> None:
    """A record without media earns what the same question with a picture does."""
    kinds = {
        "multiple choice": ("A", "B"),
        "numerical": ("7", "8"),
        "regression": ("7", "700"),
        "math": (r"\frac{1}{2}", "3"),
        "open-ended": ("a star", "nothing"),
    }
    rows = []
    for number, (kind, (truth, _)) in enumerate(kinds.items()):
        about = {"problem_type": kind, "answer": truth, "problem_id": number}
        about |= {"options": ["A. one", "B. two"]} if kind == "multiple choice" else {"options": ...}
        rows += [text_row(number, **about), rl_row(**about)]
    records = read_records(write_rows(folder / "scored.json", rows))
    client: Any = Judge()
    texts = [
        [f"<think>I add.</think>\n<answer>{answer}</answer>" for answer in answers]
        for answers in kinds.values()
        for _ in ("text", "image")
    ]
    scorer = Scorer(client, settings=RewardSettings(variant=variant))
    scores = scorer(records, texts)
    for (without, with_picture), kind in zip(zip(scores[::2], scores[1::2], strict=True), kinds, strict=True):
        assert without == with_picture, kind
        if kind == "open-ended":
            assert [score.accuracy for score in without] == [0.25, 0.25]
        else:
            assert without[0].accuracy == 1.0 > without[1].accuracy, kind
            assert without[0].overall == pytest.approx(max_overall(kind, "text", variant))
    asked = client.asked[0]
    assert asked.question.startswith("What is 4 + 4?\n") and "<image>" not in asked.question
    assert scorer.max_accuracy(records[0]) == 1.0 and scorer.predict_masks(records[0], texts[0][0]) is None


def test_evaluated_beside_media(policy, sampler, records, tmp_path):
    """Greedy answers to texts and images in one call; written and read back."""
    client: Any = Judge()
    settings = replace(
        SETTINGS.rollout, prompt_slots=SETTINGS.prompts_per_step, group_size=1, temperature=0.0
    )
    one_each = Sampler(policy[0], sampler.processor, settings, mesh=make_mesh())
    params = one_each.decoding_params(policy[1])
    predictions = evaluate(
        one_each, params, records[:6], Scorer(client, settings=RewardSettings(variant="paper"))
    )
    assert [prediction.record for prediction in predictions] == records[:6]
    assert {prediction.record.data_type for prediction in predictions} == {"image", "text"}
    write_predictions(tmp_path / "p.jsonl", predictions)
    assert read_predictions(tmp_path / "p.jsonl", records[:6]) == predictions
    alone = evaluate(
        one_each,
        params,
        [r for r in records[:6] if r.data_type == "text"],
        Scorer(client, settings=RewardSettings(variant="paper")),
    )
    assert [p.response for p in alone] == [p.response for p in predictions if p.record.data_type == "text"]


# ---------------------------------------------------------------------------------------------- pages


def checked(page: Path) -> str:
    text, checker = page.read_text(), Checker()
    checker.feed(text)
    assert not checker.open
    assert checker.count.get("img", 0) == 0 and 'src=""' not in text
    return text


def test_pages_show_a_question_without_a_picture(text: Record, tmp_path: Path) -> None:
    """The rollouts of a step, and the run's page: no picture, no empty frame, the text over the whole width."""
    texts = ["<think>I add.</think>\n<answer>7</answer>", "<think>?</think>\n<answer>8</answer>", "cut"]
    client: Any = Judge()
    (scores,) = Scorer(client, settings=RewardSettings(variant="paper"))([text], [texts])
    tokens = [np.arange(5, dtype=np.int32)] * 3
    prompt: Any = SimpleNamespace(tokens=np.zeros(1), patches=np.zeros(0))
    samples = Samples(tokens, [np.zeros(5, np.float32)] * 3, [True, True, False], texts)
    group = Group(0, text, prompt, samples, scores)
    pages = RolloutPages(RunFolder(tmp_path), LogSettings(), media=MediaReader(), fps=2.0)
    pages.write(10, [group], np.array([[1.0, -0.5, -0.5]], np.float32), {"reward": 0.5})
    shown = checked(tmp_path / "rollouts" / "step_00000010.html")
    assert '<div class="media"></div>' in shown and 'data-task="math (text)"' in shown
    assert "What is 3 + 4?" in shown and shown.count("<details") == 3

    answers = [stage_answer(text, texts[0], scores[0], stage="after RL")]
    item = gallery_item(text, answers, settings=RewardSettings(variant="paper"))
    assert item.frames == [] and '<div class="media"></div>' in card_html(item)
    assert item.best == (2.0, 1.0)
    summary = Summary([TaskSummary("math (text)", 1, [0.0, 0.5, 2.0])])
    write_page(tmp_path / "index.html", title="t", summary=summary, curves=[], gallery=[item])
    shown = checked(tmp_path / "index.html")
    assert "math (text)" in shown and "What is 3 + 4?" in shown
    assert ":has(> .media:empty)" in shown


# ---------------------------------------------------------------------------------------------- a whole run


@pytest.mark.slow
def test_a_run_on_text_and_images_and_its_resume(folder: Path, tmp_path: Path) -> None:
    """SFT, RL, held-out answers, pages and the exported model; stopped in both stages it ends in the same bits."""
    numbers = range(12)
    sft = [row for n in numbers for row in (text_sft_row(n), sft_row(problem_id=f"i{n}", problem_type="OCR"))]
    rl = [row for n in numbers for row in (text_row(n), rl_row(problem_id=f"i{n}"))]
    files = {name: write_rows(folder / f"{name}.json", rows) for name, rows in {"sft": sft, "rl": rl}.items()}
    files["heldout"] = write_rows(folder / "heldout.json", rl[:6])
    flags = [part for name, file in files.items() for part in (f"--data.{name}-file", file)]
    flags += ["--data.rl-mixture.tasks", "math (text)", 2]
    whole, stopped = tmp_path / "whole" / "smoke", tmp_path / "stopped" / "smoke"
    result = running.module("", "smoke", "--out", whole.parent, *flags, code=running.WITHOUT_TORCH)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "math (text)" in result.stdout and "warning" not in result.stdout and result.stderr == ""
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert any("reward/math (text)" in row for row in rows)
    predictions = [json.loads(line) for line in (whole / "heldout" / "rl.jsonl").read_text().splitlines()]
    assert [row["task"] for row in predictions] == ["math (text)", "multiple choice (image)"] * 3
    page = (whole / "index.html").read_text()
    assert 'data-task="math (text)"' in page and '<div class="media"></div>' in page

    command = ("smoke", "--out", stopped.parent, *flags)
    for stage in ("sft", "rl"):
        result = running.interrupted(stage, *command)
        assert result.returncode == 130, result.stdout + result.stderr
    result = running.module("onethinker_jax.train", *command)
    assert result.returncode == 0, result.stderr
    for name in (
        "model/model.safetensors",
        "heldout/sft.jsonl",
        "heldout/rl.jsonl",
        "heldout/rl_sampled.jsonl",
    ):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
